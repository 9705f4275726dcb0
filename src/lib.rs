//! tollgate
pub mod config;
pub mod envelope;
pub mod protocol;
pub mod usage;
