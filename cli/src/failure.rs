//! Why a command failed, and the exit code that says so.

use std::{fmt, process::ExitCode};

/// What can be told: text, or an error.
pub(crate) trait Message: fmt::Display + fmt::Debug + Send + Sync + 'static {}

impl<T: fmt::Display + fmt::Debug + Send + Sync + 'static> Message for T {}

/// The two kinds of failure that scripts tell apart.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The world is at fault: exit code 1.
    Failed(anyhow::Error),
    /// What was typed, or the file, is at fault: exit code 2.
    WrongInput(anyhow::Error),
}

impl Failure {
    pub(crate) fn failed(message: impl Message) -> Self {
        Self::Failed(anyhow::Error::msg(message))
    }

    pub(crate) fn wrong_input(message: impl Message) -> Self {
        Self::WrongInput(anyhow::Error::msg(message))
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Failed(_) => ExitCode::from(1),
            Self::WrongInput(_) => ExitCode::from(2),
        }
    }
}

impl fmt::Display for Failure {
    /// The whole chain in one line: verb and object, then the cause. Some errors say
    /// their cause themselves; it is not said twice.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Failed(error) | Self::WrongInput(error)) = self;
        let mut said = String::new();
        for cause in error.chain().map(ToString::to_string) {
            if said.ends_with(&cause) {
                continue;
            }
            if !said.is_empty() {
                said.push_str(": ");
            }
            said.push_str(&cause);
        }
        f.write_str(&said)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let error = anyhow::anyhow!("address in use").context("listen: address in use").context("start");
        assert_eq!(Failure::from(error).to_string(), "start: listen: address in use");
    }
}
