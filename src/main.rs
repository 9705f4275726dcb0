//! Parse the command line, run the command, turn an error into an exit code.

use std::process::ExitCode;

use clap::Parser as _;

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
