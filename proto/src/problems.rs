//! Everything that is wrong with a configuration, by path: all of it, not the first.

use std::fmt;

/// Problems that are kept. A person reads a screen or two; a generated document can
/// be wrong in a million places.
const KEPT: usize = 100;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, as in `providers[0].deployments[1].price.input_usd_per_mtok`.
    pub path: String,
    /// What, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// All that is wrong, in document order. The first 100 are kept, the rest counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    kept: Vec<Problem>,
    dropped: usize,
}

impl Problems {
    /// One problem.
    pub fn one(path: impl fmt::Display, message: impl Into<String>) -> Self {
        let mut problems = Self::default();
        problems.push(path, message);
        problems
    }

    /// Adds one.
    pub fn push(&mut self, path: impl fmt::Display, message: impl Into<String>) {
        if self.kept.len() < KEPT {
            self.kept.push(Problem { path: path.to_string(), message: message.into() });
        } else {
            self.dropped += 1;
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Those that were kept.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.kept.iter()
    }

    /// How many more there were.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// `value` if nothing is wrong.
    ///
    /// # Errors
    /// If something is.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Problems {
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

impl std::error::Error for Problems {}

/// A place in a document, made into text only when something is wrong there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Path<'a> {
    /// The document.
    Root,
    /// A field.
    Field(&'a Self, &'static str),
    /// An element of a repeated field.
    Item(&'a Self, &'static str, usize),
}

impl Path<'_> {
    /// A field of this.
    pub(crate) fn field<'b>(&'b self, name: &'static str) -> Path<'b> {
        Path::Field(self, name)
    }

    /// An element of a repeated field of this.
    pub(crate) fn item<'b>(&'b self, name: &'static str, index: usize) -> Path<'b> {
        Path::Item(self, name, index)
    }

    fn prefix(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            _ => write!(f, "{self}."),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(parent, name) => {
                parent.prefix(f)?;
                f.write_str(name)
            }
            Self::Item(parent, name, index) => {
                parent.prefix(f)?;
                write!(f, "{name}[{index}]")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_hundred_are_kept_and_the_rest_is_counted() {
        let mut problems = Problems::default();
        for index in 0..1_000 {
            problems.push(Path::Root.item("providers", index), "is wrong");
        }
        assert_eq!(problems.iter().count(), 100);
        let text = problems.to_string();
        assert!(text.starts_with("providers[0]: is wrong\nproviders[1]: is wrong\n"), "{text}");
        assert!(text.ends_with("providers[99]: is wrong\nand 900 more"), "{text}");
    }

    #[test]
    fn paths_name_fields_and_elements() {
        let provider = Path::Root.item("providers", 0);
        let deployment = provider.item("deployments", 1);
        let price = deployment.field("price");
        assert_eq!(
            price.field("input_usd_per_mtok").to_string(),
            "providers[0].deployments[1].price.input_usd_per_mtok"
        );
    }
}
