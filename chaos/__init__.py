"""What happens when things break: a gateway in processes of its own, and every byte that clients get looked at."""
