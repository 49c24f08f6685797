//! What is wrong with the text of a document, and where in it.

use std::fmt;

/// Problems that are kept; a person reads a screen or two.
const KEPT: usize = 100;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadProblem {
    /// From 1. 0: no place in the text.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// As in `virtual_models[0].tiers[1]`. Empty: the document.
    pub path: String,
    /// What, and what would be right.
    pub message: String,
}

impl fmt::Display for LoadProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}: ", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// All that is wrong with a document. The first 100 are kept, the rest counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadError {
    kept: Vec<LoadProblem>,
    dropped: usize,
}

impl LoadError {
    pub(super) fn one(line: usize, column: usize, message: impl Into<String>) -> Self {
        let mut error = Self::default();
        error.push((line, column), "", message);
        error
    }

    pub(super) fn push(&mut self, (line, column): (usize, usize), path: &str, message: impl Into<String>) {
        if self.kept.len() < KEPT {
            let (path, message) = (path.to_owned(), message.into());
            self.kept.push(LoadProblem { line, column, path, message });
        } else {
            self.dropped += 1;
        }
    }

    pub(super) fn add_dropped(&mut self, count: usize) {
        self.dropped += count;
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Those that were kept.
    pub fn iter(&self) -> impl Iterator<Item = &LoadProblem> {
        self.kept.iter()
    }

    /// How many more there were.
    pub fn dropped(&self) -> usize {
        self.dropped
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.kept.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        if self.dropped > 0 {
            write!(f, "\nand {} more", self.dropped)?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadError {}
