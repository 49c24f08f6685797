//! The two streams: results on standard output, complaints on standard error.

use std::io::{self, ErrorKind, Write as _};

use crate::failure::Failure;

/// Writes a result. A reader that left early (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::Failed(anyhow::Error::new(error).context("write standard output"))),
    }
}

/// Writes one line of a result.
pub(crate) fn print_line(line: &str) -> Result<(), Failure> {
    print(&format!("{line}\n"))
}

/// Says something beside the result, on standard error.
pub(crate) fn remark(text: &str) {
    writeln!(io::stderr(), "{text}").ok();
}

/// Tells why a command failed. With standard error gone there is nobody to tell.
pub(crate) fn complain(failure: &Failure) {
    writeln!(io::stderr(), "error: {failure}").ok();
}
