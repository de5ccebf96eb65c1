//! Reads and writes YAML. The only module that knows `serde_yaml`: it refuses duplicate keys, which must not be left to
//! chance in a manifest, but writes strings such as `yes` unquoted; so writing is done by `serde_saphyr`.

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value as Json;
use serde_yaml::Value as Yaml;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::marker::PhantomData;

/// YAML that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct YamlError {
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: String,
}

impl From<serde_yaml::Error> for YamlError {
    fn from(error: serde_yaml::Error) -> Self {
        Self {
            line: error.location().map(|location| location.line()),
            problem: error.to_string(),
        }
    }
}

fn problem(text: &str) -> YamlError {
    YamlError {
        line: None,
        problem: text.to_owned(),
    }
}

/// The one document of the text as JSON; none when there is nothing but comments.
pub(crate) fn document(text: &str) -> Result<Option<Json>, YamlError> {
    let mut found = None;
    for document in serde_yaml::Deserializer::from_str(text) {
        let mut value: Yaml = serde::Deserialize::deserialize(document)?;
        if value.is_null() {
            continue;
        }
        if found.is_some() {
            return Err(problem(
                "has more than one document; put each object into a template of its own",
            ));
        }
        value.apply_merge()?;
        found = Some(json(value)?);
    }
    Ok(found)
}

/// A settings file into its type. Unknown and duplicate fields are errors where the type says so.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    Ok(serde_yaml::from_str(text)?)
}

/// The value as YAML that readers of YAML 1.1 and 1.2 understand alike.
pub(crate) fn write(value: &impl Serialize) -> Result<String, YamlError> {
    serde_saphyr::to_string(value).map_err(|error| problem(&error.to_string()))
}

/// An error about the value at this path, as in `quota.pods` or `egress[0].cidr`, with its line where the text has it.
pub(crate) fn wrong(text: &str, path: &str, problem: &str) -> YamlError {
    let place = place(text, path);
    let at = place.map_or_else(String::new, |(line, column)| {
        format!(" at line {line} column {column}")
    });
    YamlError {
        line: place.map(|(line, _)| line),
        problem: format!("{path}: {problem}{at}"),
    }
}

/// The line and column, from 1, of the value at this path; none where the text does not have it.
pub(crate) fn place(text: &str, path: &str) -> Option<(usize, usize)> {
    let steps: Vec<&str> = path
        .split(['.', '['])
        .map(|step| step.trim_end_matches(']'))
        .collect();
    let found = Seek(&steps).deserialize(serde_yaml::Deserializer::from_str(text));
    let error = found.err().filter(|error| error.to_string().contains(FOUND))?;
    let location = error.location()?;
    Some((location.line(), location.column()))
}

/// What an error says that is none: it tells a place.
const FOUND: &str = "the value that is looked for";

/// Goes to a value, and stops there by an error: the parser says of errors alone where they are.
struct Seek<'p>(&'p [&'p str]);

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! stop_at {
    ($($visit:ident($type:ty)),*) => {
        $(fn $visit<E: serde::de::Error>(self, _: $type) -> Result<(), E> {
            if self.0.is_empty() { Err(E::custom(FOUND)) } else { Ok(()) }
        })*
    };
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    stop_at!(
        visit_bool(bool),
        visit_i64(i64),
        visit_u64(u64),
        visit_f64(f64),
        visit_str(&str)
    );
    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        if self.0.is_empty() {
            Err(E::custom(FOUND))
        } else {
            Ok(())
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((first, rest)) = self.0.split_first() else {
            return Err(A::Error::custom(FOUND));
        };
        while let Some(key) = map.next_key::<String>()? {
            if key == *first {
                map.next_value_seed(Seek(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((first, rest)) = self.0.split_first() else {
            return Err(A::Error::custom(FOUND));
        };
        let wanted = first.parse::<usize>().ok();
        let mut index = 0;
        loop {
            let next = if wanted == Some(index) {
                items.next_element_seed(Seek(rest))?
            } else {
                items.next_element::<IgnoredAny>()?.map(drop)
            };
            if next.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }
}

/// A map in which no key is given twice: of two, serde would keep the last without a word.
pub(crate) fn distinct<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord + fmt::Display,
    V: Deserialize<'de>,
{
    struct Distinct<K, V>(PhantomData<(K, V)>);
    impl<'de, K, V> Visitor<'de> for Distinct<K, V>
    where
        K: Deserialize<'de> + Ord + fmt::Display,
        V: Deserialize<'de>,
    {
        type Value = BTreeMap<K, V>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some(key) = entries.next_key::<K>()? {
                match map.entry(key) {
                    Entry::Occupied(entry) => {
                        return Err(A::Error::custom(format!("{} is given twice", entry.key())));
                    }
                    Entry::Vacant(entry) => entry.insert(entries.next_value()?),
                };
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(Distinct(PhantomData))
}

fn json(value: Yaml) -> Result<Json, YamlError> {
    Ok(match value {
        Yaml::Null => Json::Null,
        Yaml::Bool(flag) => Json::Bool(flag),
        Yaml::Number(number) => serde_json::to_value(&number).map_err(|error| problem(&error.to_string()))?,
        Yaml::String(text) => Json::String(text),
        Yaml::Sequence(items) => Json::Array(items.into_iter().map(json).collect::<Result<_, _>>()?),
        Yaml::Mapping(entries) => Json::Object(
            entries
                .into_iter()
                .map(|(key, value)| match key {
                    Yaml::String(key) => Ok((key, json(value)?)),
                    other => Err(problem(&format!(
                        "has a key that is no string: {other:?}; quote it"
                    ))),
                })
                .collect::<Result<_, _>>()?,
        ),
        Yaml::Tagged(tagged) => {
            let error =
                serde_yaml::Error::custom(format!("has the tag {}; tags are not used here", tagged.tag));
            return Err(error.into());
        }
    })
}
