"""One index searched by several processes, on this machine or over a Ray cluster."""
