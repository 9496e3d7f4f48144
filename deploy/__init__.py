"""What is needed to run the services: images, proxies, boards, rules and alerts."""
