"""What both HTTP services do before a request is looked at: connections, heads, names of hosts."""
