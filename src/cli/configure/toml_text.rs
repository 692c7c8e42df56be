//! Changing TOML that a person wrote: comments, order and all other keys stay.

use toml_edit::{Array, Document, DocumentMut, Item, Table, TableLike, TomlError, Value};

use super::setup::Mistake;

/// The keys that lead to a table or value.
type Path<'a> = [&'a str];

/// TOML on its way from what is there to what shall be.
pub(super) struct Toml<'a> {
    written: &'a str,
    /// As the library would write it if nothing was changed.
    unchanged: String,
    document: DocumentMut,
}

impl<'a> Toml<'a> {
    /// Reads what is there.
    ///
    /// # Errors
    /// When it is no TOML.
    pub(super) fn parse(written: &'a str) -> Result<Toml<'a>, Mistake> {
        let document: DocumentMut = written.parse().map_err(|error: TomlError| {
            let offset = error.span().map_or(0, |span| span.start);
            Mistake::at(written, offset, format!("this is no TOML: {}", error.message()))
        })?;
        Ok(Toml { written, unchanged: document.to_string(), document })
    }

    /// The table at a path, made where there is none.
    ///
    /// # Errors
    /// When something else is there.
    pub(super) fn table(&mut self, path: &Path<'_>) -> Result<&mut dyn TableLike, Mistake> {
        let written = self.written;
        let mut table: &mut dyn TableLike = self.document.as_table_mut();
        for key in path {
            let item = table.entry(key).or_insert_with(implicit_table);
            let below = item.as_table_like_mut();
            table = below.ok_or_else(|| wrong(written, path, "is no table"))?;
        }
        Ok(table)
    }

    /// What is at a path.
    pub(super) fn get(&self, path: &Path<'_>) -> Option<&Item> {
        path.iter().try_fold(self.document.as_item(), |item, key| item.get(key))
    }

    /// The value of a text at a path; `None` where nothing is.
    ///
    /// # Errors
    /// When something else is there.
    pub(super) fn text(&self, path: &Path<'_>) -> Result<Option<&str>, Mistake> {
        let Some(item) = self.get(path) else {
            return Ok(None);
        };
        item.as_str().map(Some).ok_or_else(|| self.wrong(path, "is no text"))
    }

    /// Sets one key of the table at a path, as [`set_in`] does.
    ///
    /// # Errors
    /// When no table is there.
    pub(super) fn set(
        &mut self,
        path: &Path<'_>,
        key: &str,
        value: impl Into<Value>,
    ) -> Result<(), Mistake> {
        set_in(self.table(path)?, key, value);
        Ok(())
    }

    /// Puts a text at the head of a list, unless it is in it.
    ///
    /// # Errors
    /// When something else than a list is there.
    pub(super) fn list_first(
        &mut self,
        path: &Path<'_>,
        key: &str,
        text: &str,
    ) -> Result<(), Mistake> {
        let written = self.written;
        let item = self.table(path)?.entry(key).or_insert_with(|| Array::new().into());
        let list = item.as_array_mut();
        let list = list.ok_or_else(|| wrong(written, &[path, &[key]].concat(), "is no list"))?;
        if !list.iter().any(|listed| listed.as_str() == Some(text)) {
            insert_first(list, text);
        }
        Ok(())
    }

    /// A mistake in what is written at a path.
    pub(super) fn wrong(&self, path: &Path<'_>, what: &str) -> Mistake {
        wrong(self.written, path, what)
    }

    /// The whole text, to the byte as it was written if nothing was changed.
    pub(super) fn into_text(self) -> String {
        match self.document.to_string() {
            text if text == self.unchanged => self.written.to_owned(),
            text => text,
        }
    }

    /// The whole text, below a header where there was none.
    pub(super) fn into_text_below(self, header: &str) -> String {
        let is_new = self.written.trim().is_empty();
        let text = self.into_text();
        if is_new { format!("{header}{text}") } else { text }
    }

    /// The root table, for what the above cannot do.
    pub(super) fn root(&mut self) -> &mut Table {
        self.document.as_table_mut()
    }
}

/// Sets one key of a table. Comments beside it stay.
pub(super) fn set_in(table: &mut dyn TableLike, key: &str, value: impl Into<Value>) {
    let mut value = value.into();
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => {
            table.insert(key, Item::Value(value));
        }
    }
}

/// A table whose header is written only if values stand below it.
pub(super) fn implicit_table() -> Item {
    let mut table = Table::new();
    table.set_implicit(true);
    Item::Table(table)
}

/// Puts a text before the others, in the same layout.
fn insert_first(list: &mut Array, text: &str) {
    let layout = list.get(0).and_then(|first| first.decor().prefix()?.as_str().map(str::to_owned));
    list.insert(0, text);
    let Some(layout) = layout.filter(|layout| layout.trim().is_empty()) else {
        return;
    };
    if layout.is_empty()
        && let Some(second) = list.get_mut(1)
    {
        second.decor_mut().set_prefix(" ");
    }
    if let Some(first) = list.get_mut(0) {
        first.decor_mut().set_prefix(layout);
    }
}

/// The mistake that what is written at `path` `is` something.
fn wrong(written: &str, path: &Path<'_>, is: &str) -> Mistake {
    let message = format!("{} {is}", path.join("."));
    match offset_of(written, path) {
        Some(offset) => Mistake::at(written, offset, message),
        None => Mistake::of_all(message),
    }
}

/// Where what is at a path, or the nearest table above it, is written.
fn offset_of(written: &str, path: &Path<'_>) -> Option<usize> {
    let document = Document::parse(written).ok()?;
    let mut item = document.as_item();
    let mut offset = None;
    for key in path {
        let Some(below) = item.get(key) else {
            break;
        };
        item = below;
        offset = item.span().map(|span| span.start).or(offset);
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(written: &str, change: impl FnOnce(&mut Toml<'_>) -> Result<(), Mistake>) -> String {
        let mut toml = Toml::parse(written).unwrap();
        change(&mut toml).unwrap();
        toml.into_text()
    }

    #[test]
    fn a_text_goes_before_the_others_in_their_layout() {
        for (written, want) in [
            ("", "[a]\nl = [\"x\"]\n"),
            ("[a]\nl = []\n", "[a]\nl = [\"x\"]\n"),
            ("[a]\nl = [\"y\"] # why\n", "[a]\nl = [\"x\", \"y\"] # why\n"),
            ("[a]\nl = [ 'y', 'x' ]\n", "[a]\nl = [ 'y', 'x' ]\n"),
            ("[a]\nl = [\n  \"y\", # y\n]\n", "[a]\nl = [\n  \"x\",\n  \"y\", # y\n]\n"),
            ("[a]\nl = [\n  # y\n  \"y\",\n]\n", "[a]\nl = [\"x\",\n  # y\n  \"y\",\n]\n"),
            ("a = { l = [\"y\"] }\n", "a = { l = [\"x\", \"y\"] }\n"),
            ("a.b = 1\n", "a.b = 1\na.l = [\"x\"]\n"),
        ] {
            assert_eq!(changed(written, |toml| toml.list_first(&["a"], "l", "x")), want);
        }
    }

    #[test]
    fn what_is_of_another_kind_is_named_with_its_line() {
        let mut toml = Toml::parse("a = 1\n[b]\n# c\nl = 1\n").unwrap();
        let mistake = toml.list_first(&["b"], "l", "x").unwrap_err();
        assert_eq!(mistake.to_string(), ":4: b.l is no list");
        let mistake = toml.set(&["a", "b"], "c", "x").unwrap_err();
        assert_eq!(mistake.to_string(), ":1: a.b is no table");
        assert_eq!(toml.text(&["b", "l"]).unwrap_err().to_string(), ":4: b.l is no text");
        let mistake = Toml::parse("a = 1\nb\n").err().unwrap();
        assert_eq!(mistake.line, Some(2));
    }
}
