//! Quoted strings (RFC 9110 §5.6.4), in which many headers carry their values.

/// What stands in quotes, unescaped, where the opening quote has been read. A string without an
/// end goes as far as there are letters.
pub(super) fn rest_of_quoted(letters: &mut impl Iterator<Item = char>) -> String {
    let mut text = String::new();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => break,
            '\\' => text.extend(letters.next()),
            _ => text.push(letter),
        }
    }
    text
}
