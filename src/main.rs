//! Parse the command line, run the command, turn an error into an exit code.

use std::process::ExitCode;

use clap::Parser as _;

/// A request asks for memory some thirty times, a stream in many sizes that stay for long, and a configuration with many
/// keys leaves holes behind: glibc's allocator takes a fifteenth of a request's processor time more, a kibibyte a stream
/// more, and keeps three times what 100,000 keys need. It is the program's: who uses the library has their own.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[expect(clippy::print_stderr, reason = "a command complains on standard error")]
fn main() -> ExitCode {
    let arguments = tollgate::cli::Arguments::parse();
    match tollgate::cli::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("{failed}");
            ExitCode::from(failed.code())
        }
    }
}
