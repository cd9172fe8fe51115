//! A terminal that shows one page after the other in the same place.
//!
//! Pages stand on the alternate screen, so that what was there before is there again afterwards. A page is written over the
//! one before in a single write, line by line, and is never cleared first: nothing flickers. What does not fit is said
//! instead of scrolled.

use std::io::{self, Stdout, Write};

/// Enters the alternate screen and hides the cursor (ECMA-48, and the DEC modes that every terminal knows).
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// Shows the cursor and leaves the alternate screen.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Moves to the upper left corner.
const HOME: &str = "\x1b[H";
/// Erases the rest of the line.
const ERASE_LINE: &str = "\x1b[K";
/// Erases the rest of the screen.
const ERASE_BELOW: &str = "\x1b[J";

/// What is taken for the size of a terminal that does not tell it.
const USUAL: (usize, usize) = (80, 24);

/// The screen of standard output, taken until it is dropped.
#[derive(Debug)]
pub(super) struct Screen(Stdout);

impl Screen {
    /// Takes the terminal.
    pub(super) fn enter() -> io::Result<Self> {
        let mut screen = Self(io::stdout());
        screen.write(ENTER)?;
        Ok(screen)
    }

    /// Shows a page in place of the one before.
    pub(super) fn show(&mut self, page: &str) -> io::Result<()> {
        let size = rustix::termios::tcgetwinsize(&self.0);
        let size = size.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
        let (columns, rows) = size.ok().filter(|(columns, rows)| *columns > 0 && *rows > 0).unwrap_or(USUAL);
        let lines = fit(page, columns, rows);
        let text: String = lines.iter().map(|line| format!("{line}{ERASE_LINE}")).collect::<Vec<_>>().join("\r\n");
        self.write(&format!("{HOME}{text}{ERASE_BELOW}"))
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.0.write_all(text.as_bytes())?;
        self.0.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to give back.
        let _ = self.write(LEAVE);
    }
}

/// The rows of a page on a terminal of this size: long lines go on in the next row, and where there are more rows than fit,
/// the last one says how many.
fn fit(page: &str, columns: usize, rows: usize) -> Vec<String> {
    let mut fitted = Vec::new();
    for line in page.lines() {
        let characters: Vec<char> = line.replace(char::is_control, "?").chars().collect();
        if characters.is_empty() {
            fitted.push(String::new());
        }
        fitted.extend(characters.chunks(columns).map(|row| row.iter().collect::<String>()));
    }
    if fitted.len() > rows {
        let hidden = fitted.len() - rows + 1;
        fitted.truncate(rows - 1);
        fitted.push(format!("... {hidden} more rows: enlarge the terminal").chars().take(columns).collect());
    }
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_fills_the_terminal_and_never_more() {
        assert_eq!(fit("abcdefg\n\nhi\n", 3, 9), ["abc", "def", "g", "", "hi"]);
        assert_eq!(fit("a\nb\nc\nd\n", 40, 3), ["a", "b", "... 2 more rows: enlarge the terminal"]);
        assert_eq!(fit("a\nb\n", 5, 1), ["... 2"]);
        assert_eq!(fit("a\u{1b}[2J", 80, 24), ["a?[2J"]);
    }
}
