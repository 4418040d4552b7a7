"""Reads one Set-Cookie value from standard input as Python's own clients do, and prints the Cookie value to send.

rsconnect-python keeps cookies in `http.cookies.SimpleCookie`, one jar per connection.
"""

import sys
from http.cookies import SimpleCookie

jar = SimpleCookie()
jar.load(sys.stdin.read().strip())
print("; ".join(f"{name}={morsel.value}" for name, morsel in jar.items()))
