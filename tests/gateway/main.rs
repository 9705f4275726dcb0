//! The whole gateway, over real sockets, on ports of its own. One binary, many chapters.

mod support;

mod cli;
mod drain;
mod leave;
mod path;
mod reload;
