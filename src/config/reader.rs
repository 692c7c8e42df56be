//! Reads keys from flags, variables and the file, in this order, and remembers which keys were asked for:
//! those are the keys that exist, and whatever else is written is a mistake.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    ConfigError, Places,
    written::{Document, Origin, Value, Written, Wrong},
};

/// The variable that stands for `--config`.
pub(super) const FILE_VARIABLE: &str = "LARDER_CONFIG";

/// Where a configuration is sought. Holds secrets, hence no `Debug`.
#[derive(Clone, Default)]
pub struct Sources {
    /// Values from the command line by key, such as `data_dir`; lists with commas.
    pub flags: BTreeMap<&'static str, String>,
    /// The environment. An empty variable counts as unset.
    pub env: BTreeMap<String, String>,
    /// The file. Without one, the file that `LARDER_CONFIG` names, or none.
    pub file: Option<PathBuf>,
}

impl Sources {
    /// The configuration file, if there is one.
    pub(super) fn file(&self) -> Option<&Path> {
        let named_by_variable = || self.variable(FILE_VARIABLE).map(|(_, path)| Path::new(path));
        self.file.as_deref().or_else(named_by_variable)
    }

    /// A variable that is set, with its name.
    pub(super) fn variable(&self, name: &str) -> Option<(&str, &str)> {
        self.env
            .get_key_value(name)
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(_, value)| !value.is_empty())
    }
}

/// All sources of one configuration, and the mistakes found in them so far.
pub(super) struct Reader<'a> {
    sources: &'a Sources,
    document: Document<'a>,
    table: &'a DeTable<'a>,
    /// Every key asked for so far, such as `cache.expire_after`.
    pub(super) known_keys: BTreeSet<String>,
    known_variables: BTreeSet<String>,
    places: BTreeMap<String, String>,
    errors: Vec<String>,
    warnings: Vec<String>,
}

/// The keys below one `[section]`, from all sources.
pub(super) struct Section<'r, 'a> {
    reader: &'r mut Reader<'a>,
    /// The section in the file, if it is there.
    table: Option<&'a DeTable<'a>>,
    /// Where the section begins, if it is in the file.
    origin: Option<Origin<'a>>,
    /// What stands before a key: `cache.`
    prefix: String,
    /// What stands before a variable: `LARDER_CACHE_`. `None`: only the file has these keys.
    variables: Option<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        sources: &'a Sources,
        document: Document<'a>,
        table: &'a DeTable<'a>,
    ) -> Reader<'a> {
        Reader {
            sources,
            document,
            table,
            known_keys: BTreeSet::new(),
            known_variables: BTreeSet::from([FILE_VARIABLE.to_owned()]),
            places: BTreeMap::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// A variable that is set, with its name; one that is no key of Larder's.
    pub(super) fn variable(&self, name: &str) -> Option<(&'a str, &'a str)> {
        self.sources.variable(name)
    }

    /// The keys above the first section.
    pub(super) fn root(&mut self) -> Section<'_, 'a> {
        Section {
            table: Some(self.table),
            origin: None,
            prefix: String::new(),
            variables: Some("LARDER_".to_owned()),
            reader: self,
        }
    }

    /// The keys of `[name]`.
    pub(super) fn section(&mut self, name: &str) -> Section<'_, 'a> {
        let written = self.table.get(name);
        let table = written.and_then(|value| value.get_ref().as_table());
        let origin = self.origin_of(written);
        if written.is_some() && table.is_none() {
            self.wrong(origin, name, &format!("is no section; write [{name}]"));
        }
        Section {
            table,
            origin,
            prefix: format!("{name}."),
            variables: Some(format!("LARDER_{}_", name.to_uppercase())),
            reader: self,
        }
    }

    /// The tables of `[[name]]`, in the file's order.
    pub(super) fn tables(&mut self, name: &str) -> Vec<&'a Spanned<DeValue<'a>>> {
        let Some(written) = self.table.get(name) else {
            return Vec::new();
        };
        let is_list = written.get_ref().is_array();
        let items: Vec<_> = match written.get_ref().as_array() {
            Some(items) => items.iter().collect(),
            None => vec![written],
        };
        let is_table = |item: &&Spanned<DeValue<'_>>| item.get_ref().is_table();
        if !is_list || !items.iter().all(is_table) {
            let origin = self.origin_of(Some(written));
            self.wrong(origin, name, &format!("is no list of sections; write [[{name}]]"));
        }
        items.into_iter().filter(is_table).collect()
    }

    /// The keys of one table of `[[name]]`, or of none, with `variables` before its variables.
    pub(super) fn table(
        &mut self,
        name: &str,
        table: Option<&'a Spanned<DeValue<'a>>>,
        variables: Option<String>,
    ) -> Section<'_, 'a> {
        Section {
            table: table.and_then(|table| table.get_ref().as_table()),
            origin: self.origin_of(table),
            prefix: format!("{name}."),
            variables,
            reader: self,
        }
    }

    /// Notes a mistake.
    pub(super) fn wrong(
        &mut self,
        origin: impl Into<Option<Origin<'a>>>,
        key: &str,
        message: &str,
    ) {
        let mistake = match origin.into() {
            Some(origin) => format!("{origin}: {key}: {message}"),
            None => format!("{key}: {message}"),
        };
        // A section may be read in two places.
        if !self.errors.contains(&mistake) {
            self.errors.push(mistake);
        }
    }

    /// Notes what is legal but odd.
    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// Ends the reading: mistakes, or the places and the warnings. Call it when every key was asked for.
    pub(super) fn finish(mut self) -> Result<(Places, Vec<String>), ConfigError> {
        self.refuse_unknown_keys(self.table, "");
        if !self.errors.is_empty() {
            return Err(ConfigError::new(self.errors));
        }
        let mut warnings = self.unknown_variables();
        warnings.append(&mut self.warnings);
        Ok((Places(self.places), warnings))
    }

    fn refuse_unknown_keys(&mut self, table: &'a DeTable<'a>, prefix: &str) {
        for (key, value) in table {
            let path = format!("{prefix}{}", key.get_ref());
            let below = format!("{path}.");
            let has_keys_below = self.known_keys.iter().any(|known| known.starts_with(&below));
            if has_keys_below {
                for table in tables_in(value.get_ref()) {
                    self.refuse_unknown_keys(table, &below);
                }
            } else if !self.known_keys.contains(&path) {
                let origin = Origin::File(self.document, key.span().start);
                let sections = self.known_keys.iter().filter_map(|key| key.rsplit_once('.'));
                let sections = sections.map(|(section, _)| section);
                let keys = self.known_keys.iter().map(String::as_str);
                let nearest = nearest(&path, keys.chain(sections)).to_owned();
                self.wrong(origin, &path, &format!("no such key; the nearest is {nearest}"));
            }
        }
    }

    fn unknown_variables(&self) -> Vec<String> {
        self.sources
            .env
            .keys()
            .filter(|name| name.starts_with("LARDER_") && !is_injected_by_kubernetes(name))
            .filter(|name| !self.known_variables.contains(*name))
            .map(|name| {
                let nearest = nearest(name, self.known_variables.iter().map(String::as_str));
                format!("{name}: no such variable; the nearest is {nearest}")
            })
            .collect()
    }

    fn origin_of(&self, value: Option<&Spanned<DeValue<'_>>>) -> Option<Origin<'a>> {
        value.map(|value| Origin::File(self.document, value.span().start))
    }

    /// Remembers that `name` is a variable. The same name for two keys would send a secret to the
    /// wrong place.
    fn know_variable(&mut self, name: String, key: &str) {
        if let Some((set, _)) = self.sources.variable(&name)
            && self.known_variables.contains(&name)
        {
            let message = "two registries share this variable; write the key into the file";
            self.wrong(Origin::Variable(set), key, message);
        }
        self.known_variables.insert(name);
    }
}

impl<'a> Section<'_, 'a> {
    /// The value of `key`, parsed. `None`: not written, or wrong, which is noted.
    pub(super) fn take<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(Written<'a>) -> Result<T, Wrong<'a>>,
    ) -> Option<T> {
        self.take_written(key, parse).map(|(value, _)| value)
    }

    /// As [`Section::take`], with the place it is written at.
    pub(super) fn take_written<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(Written<'a>) -> Result<T, Wrong<'a>>,
    ) -> Option<(T, Origin<'a>)> {
        let written = self.find(key)?;
        let value = self.parse(key, written, parse)?;
        Some((value, written.origin))
    }

    /// Parses `written`, which is the value of `key` or an item of it.
    pub(super) fn parse<T>(
        &mut self,
        key: &str,
        written: Written<'a>,
        parse: impl FnOnce(Written<'a>) -> Result<T, Wrong<'a>>,
    ) -> Option<T> {
        parse(written).map_err(|wrong| self.wrong_at(wrong.origin, key, &wrong.message)).ok()
    }

    /// Whether `key` is written anywhere, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.look_up(key).is_some()
    }

    /// Where the section begins, if it is in the file.
    pub(super) fn origin(&self) -> Option<Origin<'a>> {
        self.origin
    }

    /// The tables of `[[section.key]]`, in the file's order. Only the file has them.
    pub(super) fn tables(&mut self, key: &str) -> Vec<Written<'a>> {
        let path = self.path(key);
        let tables = match self.in_file(key) {
            Some(written) if written.is_list_of_tables() => written.items(),
            Some(written) => {
                let message = format!("is no list of sections; write [[{path}]]");
                self.wrong_at(written.origin, key, &message);
                Vec::new()
            }
            None => Vec::new(),
        };
        self.reader.known_keys.insert(path);
        tables
    }

    /// The keys of `table`, an item of the list `key`.
    pub(super) fn below(&mut self, key: &str, table: Written<'a>) -> Option<Section<'_, 'a>> {
        let Value::Toml(DeValue::Table(keys)) = table.value else {
            return None;
        };
        Some(Section {
            reader: self.reader,
            table: Some(keys),
            origin: Some(table.origin),
            prefix: format!("{}{key}.", self.prefix),
            variables: None,
        })
    }

    /// Notes a mistake about `key` where it is written, or else where the section begins.
    pub(super) fn wrong(&mut self, key: &str, message: &str) {
        let written = self.look_up(key).map(|written| written.origin);
        self.wrong_at(written.or(self.origin), key, message);
    }

    /// Notes a mistake about `key`.
    pub(super) fn wrong_at(
        &mut self,
        origin: impl Into<Option<Origin<'a>>>,
        key: &str,
        message: &str,
    ) {
        let path = self.path(key);
        self.reader.wrong(origin, &path, message);
    }

    /// What is written of `key`, which is a key of Larder from here on.
    fn find(&mut self, key: &str) -> Option<Written<'a>> {
        let path = self.path(key);
        if let Some(name) = self.variable(key) {
            self.reader.know_variable(name, &path);
        }
        let written = self.look_up(key);
        if let Some(written) = written {
            let place = written.origin.to_string();
            self.reader.places.insert(path.clone(), place);
        }
        self.reader.known_keys.insert(path);
        written
    }

    fn look_up(&self, key: &str) -> Option<Written<'a>> {
        self.on_command_line(key).or_else(|| self.in_environment(key)).or_else(|| self.in_file(key))
    }

    fn on_command_line(&self, key: &str) -> Option<Written<'a>> {
        let path = self.path(key);
        let (key, value) = self.reader.sources.flags.get_key_value(path.as_str())?;
        Some(Written { value: Value::Bare(value), origin: Origin::Flag(key) })
    }

    fn in_environment(&self, key: &str) -> Option<Written<'a>> {
        let (name, value) = self.reader.sources.variable(&self.variable(key)?)?;
        Some(Written { value: Value::Bare(value), origin: Origin::Variable(name) })
    }

    fn in_file(&self, key: &str) -> Option<Written<'a>> {
        let value = self.table?.get(key)?;
        Some(Written {
            value: Value::Toml(value.get_ref()),
            origin: Origin::File(self.reader.document, value.span().start),
        })
    }

    fn path(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn variable(&self, key: &str) -> Option<String> {
        let prefix = self.variables.as_ref()?;
        Some(format!("{prefix}{}", key.to_uppercase()))
    }
}

/// The table that `value` is, or the tables that it lists.
fn tables_in<'a>(value: &'a DeValue<'a>) -> Vec<&'a DeTable<'a>> {
    let items = value.as_array().into_iter().flatten();
    let listed = items.filter_map(|item| item.get_ref().as_table());
    value.as_table().into_iter().chain(listed).collect()
}

/// The candidate that `name` was probably meant to be: the same key of another section, else the
/// one with the fewest letters changed.
fn nearest<'k>(name: &str, candidates: impl Iterator<Item = &'k str>) -> &'k str {
    let last = |path: &str| path.rsplit('.').next().map(str::to_owned);
    candidates
        .min_by_key(|candidate| {
            let is_elsewhere = last(candidate) == last(name);
            (!is_elsewhere, strsim::damerau_levenshtein(name, candidate))
        })
        .unwrap_or_default()
}

/// Kubernetes sets these in every pod beside a service named `larder`.
fn is_injected_by_kubernetes(name: &str) -> bool {
    name == "LARDER_PORT" || name.starts_with("LARDER_PORT_") || name.starts_with("LARDER_SERVICE_")
}
