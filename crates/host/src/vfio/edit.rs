//! A change of one file, and how it looks to a person: what binding and unbinding consist of.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::host_fs::Node;

/// One path before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Which.
    pub path: String,
    /// What is there.
    pub before: Option<Node>,
    /// What shall be there.
    pub after: Option<Node>,
}

/// What a manifest knows of a [`Node`] besides its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Print {
    /// A file.
    File {
        /// SHA-256 of its content, hexadecimal.
        sha256: String,
        /// Permissions.
        mode: u32,
        /// User and group; absent where the process's own are meant.
        owner: Option<(u32, u32)>,
    },
    /// A symbolic link.
    Link {
        /// What it holds.
        target: String,
    },
}

impl Print {
    /// Of a node.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        match node {
            Node::File { content, mode, owner } => {
                Self::File { sha256: hex::encode(Sha256::digest(content)), mode: *mode, owner: *owner }
            }
            Node::Link { target } => Self::Link { target: target.to_string_lossy().into_owned() },
        }
    }

    /// Whether `node` has this content, whatever its permissions and owner.
    #[must_use]
    pub fn has_content_of(&self, node: &Node) -> bool {
        match (self, Self::of(node)) {
            (Self::File { sha256: one, .. }, Self::File { sha256: other, .. }) => *one == other,
            (Self::Link { target: one }, Self::Link { target: other }) => *one == other,
            _ => false,
        }
    }
}

/// The text of a node, for people and for taking lines out.
fn text(node: Option<&Node>) -> String {
    match node {
        Some(Node::File { content, .. }) => String::from_utf8_lossy(content).into_owned(),
        Some(Node::Link { target }) => format!("-> {}\n", target.display()),
        None => String::new(),
    }
}

impl fmt::Display for Edit {
    /// The lines that differ, those taken away first; what the file has before and after them in common is left out.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (&self.before, &self.after) {
            (None, _) => "new",
            (_, None) => "removed",
            _ => "changed",
        };
        writeln!(out, "{} ({what})", self.path)?;
        let (before, after) = (text(self.before.as_ref()), text(self.after.as_ref()));
        let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
        let head = before.iter().zip(&after).take_while(|(one, other)| one == other).count();
        let rest = before.len().min(after.len()) - head;
        let tail =
            before.iter().rev().zip(after.iter().rev()).take(rest).take_while(|(one, other)| one == other).count();
        for line in &before[head..before.len() - tail] {
            writeln!(out, "  -{line}")?;
        }
        for line in &after[head..after.len() - tail] {
            writeln!(out, "  +{line}")?;
        }
        Ok(())
    }
}

/// `current` without what turned `before` into `after`: lines added then are taken out, and so are words added to a line
/// that was there. A file of nothing else is gone.
#[must_use]
pub fn without_ours(current: &Node, before: Option<&Node>, after: Option<&Node>) -> Option<Node> {
    let Node::File { content, mode, owner } = current else { return Some(current.clone()) };
    let (before, after) = (text(before), text(after));
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let old_words = words(&before);
    let added_lines: Vec<&str> = after.lines().filter(|line| !before.lines().any(|old| old == *line)).collect();
    let added_words: Vec<_> = words(&after).into_iter().filter(|word| !old_words.contains(word)).collect();
    let is_one_line = |text: &str| text.lines().count() == 1;
    let mut kept = String::new();
    for line in String::from_utf8_lossy(content).lines() {
        if added_lines.contains(&line) && !(is_one_line(&before) && is_one_line(&after)) {
            continue;
        }
        if is_one_line(&before) && is_one_line(&after) {
            let words: Vec<_> = words(line).into_iter().filter(|word| !added_words.contains(word)).collect();
            kept.push_str(&words.join(" "));
        } else {
            kept.push_str(line);
        }
        kept.push('\n');
    }
    let is_left = !kept.trim().is_empty() || !before.is_empty();
    is_left.then(|| Node::File { content: kept.into_bytes(), mode: *mode, owner: *owner })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Node {
        Node::text(text)
    }

    #[test]
    fn an_edit_shows_only_the_lines_that_differ() {
        let edit = Edit { path: "/etc/x".into(), before: Some(file("a\nb\nc\n")), after: Some(file("a\nB\nb2\nc\n")) };
        assert_eq!(edit.to_string(), "/etc/x (changed)\n  -b\n  +B\n  +b2\n");
        let new = Edit { path: "/etc/x".into(), before: None, after: Some(Node::Link { target: "/y".into() }) };
        assert_eq!(new.to_string(), "/etc/x (new)\n  +-> /y\n");
        let gone = Edit { path: "/etc/x".into(), before: Some(file("a\n")), after: None };
        assert_eq!(gone.to_string(), "/etc/x (removed)\n  -a\n");
    }

    #[test]
    fn only_what_we_added_is_taken_out_of_a_file_that_others_changed_since() {
        let without = |current: &str, before: Option<&str>, after: &str| {
            let before = before.map(file);
            let node = without_ours(&file(current), before.as_ref(), Some(&file(after)))?;
            let Node::File { content, .. } = node else { panic!("a link") };
            Some(String::from_utf8(content).unwrap())
        };
        assert_eq!(without("ours\ntheirs\n", None, "ours\n").as_deref(), Some("theirs\n"));
        assert_eq!(without("ours\n\n", None, "ours\n"), None);
        assert_eq!(without("a\nb\nours\n", Some("a\n"), "a\nours\n").as_deref(), Some("a\nb\n"));
        assert_eq!(
            without("root=1 debug iommu=pt\n", Some("root=1\n"), "root=1 iommu=pt\n").as_deref(),
            Some("root=1 debug\n")
        );
    }
}
