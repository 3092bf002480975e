//! The console from outside: what it looks like, and what keys do.

mod fixture;
mod folding;
mod keys;
mod methods;
mod snapshots;
