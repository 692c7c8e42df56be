//! Who may see a repository.

/// Who may see a repository at its registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// Anybody, without credentials.
    Public,
    /// Some with credentials.
    Private,
}
