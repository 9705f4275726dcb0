//! tollgate
pub mod admin;
pub mod admission;
pub mod cli;
pub mod config;
pub mod envelope;
pub mod gateway;
pub mod plan;
pub mod protocol;
pub mod provider;
pub mod proxy;
pub mod rejection;
pub mod response;
pub mod route;
pub mod server;
pub mod telemetry;
pub mod upstream;
pub mod usage;
