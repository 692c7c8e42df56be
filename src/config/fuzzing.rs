//! The parser of the configuration, open to the targets in `fuzz/` and to nobody else.

use std::path::Path;

use super::{Config, ConfigError, Sources};

/// Reads a configuration as if it stood in a file of a user who has a home.
///
/// # Errors
/// As [`Config::load`].
pub fn from_text(text: &str) -> Result<Config, ConfigError> {
    let home = ("HOME".to_owned(), "/home/user".to_owned());
    let sources = Sources { env: [home].into(), ..Sources::default() };
    Config::parse(&sources, Path::new("larder.toml"), text)
}
