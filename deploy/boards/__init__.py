"""The Grafana boards as tables of panels, and what is made of them."""
