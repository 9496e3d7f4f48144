"""What several tests share: worlds, processes, samples and servers."""
