//! "Did you mean": the known key that an unknown one most likely stands for.

/// The nearest of `known`: by edit distance, else one with the same last part (a key in the wrong section).
pub(super) fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let tolerance = (name.chars().count() / 4).clamp(2, 3);
    known
        .filter_map(|candidate| {
            let edits = distance(name, &candidate);
            let rank = if edits <= tolerance {
                edits
            } else if last(name) == last(&candidate) {
                tolerance + 1
            } else {
                return None;
            };
            Some((rank, candidate))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in characters, one row at a time.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, r) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(l != *r);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (left, right, edits) in
            [("", "", 0), ("port", "prot", 2), ("port", "ports", 1), ("", "abc", 3), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(left, right), edits, "{left} {right}");
        }
    }

    #[test]
    fn a_typing_error_and_a_wrong_section_find_their_key() {
        let known = || ["wallet.name", "validation.cpu.matrix_size", "port"].map(String::from).into_iter();
        assert_eq!(nearest("wallet.nmae", known()).as_deref(), Some("wallet.name"));
        assert_eq!(nearest("matrix_size", known()).as_deref(), Some("validation.cpu.matrix_size"));
        assert_eq!(nearest("colour", known()), None);
    }
}
