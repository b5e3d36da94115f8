//! The fields of a JSON body, taken by name. What nobody took is an unknown field, and an error.
//!
//! The messages name fields and types, never values: a value may be a user's text.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::problem::{Problem, What};
use crate::prompts::OneOrEach;

/// The object of a body.
#[derive(Debug)]
pub(crate) struct Fields {
    values: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Fields {
    /// # Errors
    /// When the body is no JSON object, or has a field twice.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Problem> {
        let Object(values) = serde_json::from_slice(body).map_err(|error| {
            Problem::new(What::Invalid, format!("the body is not a JSON object as expected: {error}"))
        })?;
        Ok(Self { values, known: Vec::new() })
    }

    /// The fields of an object inside of another one.
    pub(crate) fn object(&mut self, name: &'static str) -> Result<Option<Self>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(values)) => Ok(Some(Self { values, known: Vec::new() })),
            Some(other) => Err(wrong(name, "an object", &other)),
        }
    }

    /// The value of a field; `None` when it is absent or null.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.values.shift_remove(name).filter(|value| !value.is_null())
    }

    pub(crate) fn string(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(name, "a string", &other)),
        }
    }

    pub(crate) fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(wrong(name, "true or false", &other)),
        }
    }

    pub(crate) fn integer(&mut self, name: &'static str) -> Result<Option<i64>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => value.as_i64().map(Some).ok_or_else(|| wrong(name, "an integer", &value)),
        }
    }

    /// A string that is one of a few.
    pub(crate) fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&str, T)]) -> Result<Option<T>, Problem> {
        let Some(text) = self.string(name)? else { return Ok(None) };
        let found = choices.iter().find(|(choice, _)| choice.eq_ignore_ascii_case(&text));
        let names = || choices.iter().map(|(choice, _)| *choice).collect::<Vec<_>>().join(", ");
        found
            .map(|(_, value)| Some(*value))
            .ok_or_else(|| Problem::invalid(name, format!("`{name}` must be one of {}", names())))
    }

    /// A string, or a list of them.
    pub(crate) fn one_or_each(&mut self, name: &'static str) -> Result<Option<OneOrEach>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(OneOrEach::One(text))),
            Some(Value::Array(list)) => Ok(Some(OneOrEach::Each(strings(name, list)?))),
            Some(other) => Err(wrong(name, "a string or a list of strings", &other)),
        }
    }

    /// Texts to embed: a string, or a list of 1 to `most` of them. An empty text is an error, as nothing could be pooled that
    /// says anything.
    pub(crate) fn texts(&mut self, name: &'static str, most: usize) -> Result<Vec<String>, Problem> {
        let texts = match self.take(name) {
            None => return Err(Problem::invalid(name, format!("`{name}` is missing: a string or a list of strings"))),
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(list)) if list.first().is_some_and(|first| first.is_number() || first.is_array()) => {
                let message = format!(
                    "`{name}` has token ids, which are those of another model's tokenizer; send texts (LangChain's \
                     OpenAIEmbeddings: check_embedding_ctx_length=False)"
                );
                return Err(Problem::invalid(name, message));
            }
            Some(Value::Array(list)) => strings(name, list)?,
            Some(other) => return Err(wrong(name, "a string or a list of strings", &other)),
        };
        if !(1..=most).contains(&texts.len()) {
            let message =
                format!("`{name}` must have 1 to {most} texts, got {}; send more in several requests", texts.len());
            return Err(Problem::invalid(name, message));
        }
        match texts.iter().position(String::is_empty) {
            Some(index) => Err(Problem::invalid(name, format!("`{name}`: text {index} is empty"))),
            None => Ok(texts),
        }
    }

    /// # Errors
    /// When there is a field that nobody took.
    pub(crate) fn finish(self, ignore_unknown: bool) -> Result<(), Problem> {
        let Some((name, _)) = self.values.iter().next().filter(|_| !ignore_unknown) else { return Ok(()) };
        // A key is the client's text as well: only a name of usual form is repeated.
        let is_name = |name: &&String| {
            name.len() <= 64 && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-.".contains(letter))
        };
        let shown = Some(name).filter(is_name).map(|name| format!(" `{name}`")).unwrap_or_default();
        let message = format!("unknown field{shown}; this route takes {}", self.known.join(", "));
        Err(Problem { param: Some(name).filter(is_name).cloned(), ..Problem::new(What::UnknownField, message) })
    }
}

fn strings(name: &'static str, list: Vec<Value>) -> Result<Vec<String>, Problem> {
    let text = |(index, value): (usize, Value)| match value {
        Value::String(text) => Ok(text),
        other => Err(Problem::invalid(name, format!("`{name}`: entry {index} must be a string, got {}", kind(&other)))),
    };
    list.into_iter().enumerate().map(text).collect()
}

fn wrong(name: &str, wanted: &str, found: &Value) -> Problem {
    Problem::invalid(name, format!("`{name}` must be {wanted}, got {}", kind(found)))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// An object without a field twice: one of the two values would be dropped silently.
struct Object(Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Object, A::Error> {
                let mut values = Map::new();
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if values.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("a field stands there twice"));
                    }
                }
                Ok(Object(values))
            }

            // The default message of a string would repeat it.
            fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Object, E> {
                Err(E::custom("it is a string"))
            }
        }
        deserializer.deserialize_any(ObjectVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: &str) -> Fields {
        Fields::parse(body.as_bytes()).unwrap()
    }

    #[test]
    fn what_nobody_took_is_an_unknown_field() {
        let mut all = fields(r#"{"input": "a", "inputtype": "query", "user": null}"#);
        assert_eq!(all.texts("input", 2).unwrap(), ["a"]);
        assert_eq!(all.string("user").unwrap(), None);
        let problem = all.finish(false).unwrap_err();
        assert_eq!(problem.message, "unknown field `inputtype`; this route takes input, user");
        assert_eq!((problem.what, problem.param.as_deref()), (What::UnknownField, Some("inputtype")));
        assert!(fields(r#"{"x": 1}"#).finish(true).is_ok());
    }

    #[test]
    fn no_message_repeats_a_value() {
        let secret = "attack at dawn";
        let bodies = [
            format!(r#""{secret}""#),
            format!(r#"{{"{secret}": 1}}"#),
            format!(r#"{{"input": ["a", {{"{secret}": "{secret}"}}]}}"#),
            format!(r#"{{"input": {{"{secret}": 1}}}}"#),
            format!(r#"{{"input": "a", "truncate": "{secret}"}}"#),
            format!(r#"{{"input": "a", "input": "{secret}"}}"#),
            format!(r#"{{"input": "{secret}"#),
            format!("{{\"input\": \"{secret}\u{1}\"}}"),
        ];
        for body in bodies {
            let outcome = Fields::parse(body.as_bytes()).and_then(|mut fields| {
                fields.texts("input", 9)?;
                fields.choice("truncate", &[("NONE", 0)])?;
                fields.finish(false)
            });
            let message = outcome.unwrap_err().message;
            assert!(!message.contains("dawn"), "{message}");
        }
    }

    #[test]
    fn texts_have_their_limits() {
        let message = |body: &str| fields(body).texts("input", 2).unwrap_err().message;
        assert!(message(r#"{"input": []}"#).contains("1 to 2 texts, got 0"));
        assert!(message(r#"{"input": ["a", "b", "c"]}"#).contains("got 3"));
        assert_eq!(message(r#"{"input": ["a", ""]}"#), "`input`: text 1 is empty");
        assert!(message(r#"{"input": [1, 2]}"#).contains("check_embedding_ctx_length=False"));
        assert!(message(r#"{"input": [[1], [2]]}"#).contains("check_embedding_ctx_length=False"));
        assert!(message(r#"{"other": 1}"#).contains("missing"));
        assert!(message(r#"{"input": ["a", 5]}"#).contains("entry 1 must be a string, got a number"));
    }
}
