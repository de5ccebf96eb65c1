//! Reads and writes YAML. The only module that knows `serde_yaml`: it refuses duplicate keys, which must not be left to
//! chance in a manifest, but writes strings such as `yes` unquoted; so writing is done by `serde_saphyr`.

use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::Value as Json;
use serde_yaml::Value as Yaml;

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
