"""Which network addresses only this computer can reach."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this computer's loopback interface; a name is not resolved."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
