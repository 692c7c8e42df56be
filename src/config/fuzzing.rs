//! The parser of the configuration, open to the target in `fuzz/` and to nobody else.

use std::path::Path;

use super::{Config, ConfigError, Sources};

/// Reads a configuration as if it stood in a file.
pub fn from_text(text: &str) -> Result<Config, ConfigError> {
    Config::parse(&Sources::default(), Path::new("larder.toml"), text)
}
