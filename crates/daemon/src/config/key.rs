//! One row of a daemon's table of keys: its dotted name, what values it takes, its default and its comment.
//!
//! Rows are `const`, so that a table reads as a table:
//!
//! ```
//! use byteleap_daemon::config::Key;
//!
//! const KEYS: &[Key] = &[
//!     Key::integer("port", 1024, 65535, "port of the axon").default("9091"),
//!     Key::text("wallet.name", "wallet that signs").required(),
//!     Key::float("validation.participation_rate_threshold", 0.1, 1.0, "share of challenges to pass").default("0.80"),
//!     Key::text("http.listen", "address of the admin endpoint").parsed::<std::net::SocketAddr>().default("127.0.0.1:9092"),
//! ];
//! ```

use std::{fmt::Display, str::FromStr};

/// One configuration key of a daemon.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Dotted name, as `validation.cpu.matrix_size`.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// What holds where no source gives it.
    pub presence: Presence,
    /// One line for the example file, without the leading `#`.
    pub comment: &'static str,
    /// Whether the value is never shown. A secret key `x` may also be given as `x_file`, the path of a file whose
    /// trimmed content is the value.
    pub secret: bool,
    /// Whether a change takes effect while the daemon runs.
    pub live: bool,
}

/// The type of a key, with its bounds (inclusive).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Kind {
    /// `true` or `false`, and what YAML 1.1 takes for them: `yes`, `no`, `on`, `off`, 1 and 0.
    Boolean,
    /// A whole number.
    Integer {
        /// Smallest accepted value.
        least: i64,
        /// Greatest accepted value.
        greatest: i64,
    },
    /// A finite number; `1` counts as `1.0`.
    Float {
        /// Smallest accepted value.
        least: f64,
        /// Greatest accepted value.
        greatest: f64,
    },
    /// Text, not blank.
    Text(Check),
    /// A list of texts.
    List(Check),
    /// A mapping of texts to texts or nothing.
    Map,
}

/// A rule for one text beyond its type: `Err` says what is allowed.
pub type Check = fn(&str) -> Result<(), String>;

/// What holds where no source gives a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The daemon cannot start without it.
    Required,
    /// Nothing: the getter yields `None`. A `null` in the file means the same.
    Optional,
    /// This text, written as after `--set key=`.
    Default(&'static str),
}

impl Key {
    /// A key that is `true` or `false`.
    #[must_use]
    pub const fn boolean(name: &'static str, comment: &'static str) -> Self {
        Self::of(name, Kind::Boolean, comment)
    }

    /// A whole number from `least` to `greatest`.
    #[must_use]
    pub const fn integer(name: &'static str, least: i64, greatest: i64, comment: &'static str) -> Self {
        Self::of(name, Kind::Integer { least, greatest }, comment)
    }

    /// A number from `least` to `greatest`.
    #[must_use]
    pub const fn float(name: &'static str, least: f64, greatest: f64, comment: &'static str) -> Self {
        Self::of(name, Kind::Float { least, greatest }, comment)
    }

    /// Text that is not blank.
    #[must_use]
    pub const fn text(name: &'static str, comment: &'static str) -> Self {
        Self::of(name, Kind::Text(anything), comment)
    }

    /// A list of texts, none of them blank.
    #[must_use]
    pub const fn list(name: &'static str, comment: &'static str) -> Self {
        Self::of(name, Kind::List(anything), comment)
    }

    /// A mapping of texts to texts or nothing.
    #[must_use]
    pub const fn map(name: &'static str, comment: &'static str) -> Self {
        Self::of(name, Kind::Map, comment)
    }

    const fn of(name: &'static str, kind: Kind, comment: &'static str) -> Self {
        Self { name, kind, presence: Presence::Optional, comment, secret: false, live: false }
    }

    /// The value where no source gives one, written as after `--set key=`.
    #[must_use]
    pub const fn default(mut self, text: &'static str) -> Self {
        self.presence = Presence::Default(text);
        self
    }

    /// The daemon cannot start without this key.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.presence = Presence::Required;
        self
    }

    /// The text, or each text of the list, must satisfy this rule. Of no effect on other kinds.
    #[must_use]
    pub const fn check(mut self, check: Check) -> Self {
        self.kind = match self.kind {
            Kind::Text(_) => Kind::Text(check),
            Kind::List(_) => Kind::List(check),
            other => other,
        };
        self
    }

    /// The text, or each text of the list, must parse as a `T`; [`super::Config::parsed`] then yields it.
    #[must_use]
    pub const fn parsed<T>(self) -> Self
    where
        T: FromStr,
        T::Err: Display,
    {
        self.check(parses::<T>)
    }

    /// The value is never shown, and may be given as a file.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// A change takes effect while the daemon runs.
    #[must_use]
    pub const fn live(mut self) -> Self {
        self.live = true;
        self
    }
}

impl Kind {
    /// What the kind accepts, as an error message says it.
    pub(super) fn allowed(&self) -> String {
        match self {
            Self::Boolean => "true or false".into(),
            Self::Integer { least, greatest: i64::MAX } => format!("a whole number, {least} or more"),
            Self::Integer { least, greatest } => format!("a whole number from {least} to {greatest}"),
            Self::Float { least, greatest } if greatest.is_infinite() || *greatest == f64::MAX => {
                format!("a number, {least} or more")
            }
            Self::Float { least, greatest } => format!("a number from {least} to {greatest}"),
            Self::Text(_) => "text that is not blank".into(),
            Self::List(_) => "a list of texts".into(),
            Self::Map => "a mapping of texts to texts or nothing".into(),
        }
    }
}

fn anything(_: &str) -> Result<(), String> {
    Ok(())
}

fn parses<T>(text: &str) -> Result<(), String>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse::<T>().map(drop).map_err(|error| error.to_string())
}
