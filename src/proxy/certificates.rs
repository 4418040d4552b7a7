//! Server names → chains and keys; checked before any swap.
