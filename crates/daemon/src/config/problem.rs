//! What is wrong with a configuration, and where each value came from.

use std::{fmt, path::PathBuf};

/// Where a value came from, in rising precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The table of keys.
    Default,
    /// The YAML file.
    File(PathBuf),
    /// This environment variable.
    Environment(String),
    /// The `--set` flag.
    Argument,
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("default"),
            Self::File(path) => write!(out, "file {}", path.display()),
            Self::Environment(variable) => write!(out, "environment {variable}"),
            Self::Argument => out.write_str("--set"),
        }
    }
}

/// One thing that is wrong, or worth a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, or the file where the problem is not one key's.
    pub subject: String,
    /// Where the value came from; `None` where it came from nowhere.
    pub source: Option<Source>,
    /// What was found and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.subject)?;
        if let Some(source) = &self.source {
            write!(out, " ({source})")?;
        }
        write!(out, ": {}", self.message)
    }
}

/// Everything that is wrong with a configuration, at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// The problems, at least one.
    pub problems: Vec<Problem>,
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => out.write_str("the configuration has 1 problem:")?,
            count => write!(out, "the configuration has {count} problems:")?,
        }
        for problem in &self.problems {
            write!(out, "\n  {problem}")?;
        }
        Ok(())
    }
}
