//! `index.json` as it is read: one descriptor at a time, since all of them at once take several
//! times what the table does.

use std::{fmt, fs::File, io::BufReader};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::oci::Descriptor;

/// Hands over each descriptor that can be read. Returns the annotations of the whole, if any.
///
/// # Errors
/// When the file is no whole image index; what could be read of it was handed over before.
pub(super) fn read(
    file: File,
    each: &mut dyn FnMut(Descriptor),
) -> serde_json::Result<serde_json::Value> {
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(file));
    let annotations = json.deserialize_map(Index(each))?;
    json.end()?;
    Ok(annotations)
}

struct Index<'a>(&'a mut dyn FnMut(Descriptor));

struct Manifests<'a>(&'a mut dyn FnMut(Descriptor));

impl<'de> Visitor<'de> for Index<'_> {
    type Value = serde_json::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an image index")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<serde_json::Value, A::Error> {
        let mut annotations = serde_json::Value::Null;
        let mut manifests = Some(Manifests(self.0));
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "annotations" => annotations = map.next_value()?,
                "manifests" => {
                    let twice = || Error::duplicate_field("manifests");
                    map.next_value_seed(manifests.take().ok_or_else(twice)?)?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match manifests {
            Some(_) => Err(Error::missing_field("manifests")),
            None => Ok(annotations),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Manifests<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, list: D) -> Result<(), D::Error> {
        list.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Manifests<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("descriptors")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(written) = list.next_element::<Box<RawValue>>()? {
            if let Ok(descriptor) = serde_json::from_str(written.get()) {
                (self.0)(descriptor);
            }
        }
        Ok(())
    }
}
