-- An approval is for one removal: of this generation, and of the install that the desired version named when the
-- approval was given. A life that was revived is in its generation still, and has another install. An approval of an
-- earlier release has generation 0 and lets nothing go: its removal is held, and asks for another approval.
ALTER TABLE removal_approvals ADD COLUMN generation integer NOT NULL DEFAULT 0;
ALTER TABLE removal_approvals ADD COLUMN installed_at_us bigint;
