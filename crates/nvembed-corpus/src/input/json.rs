//! One line of JSON lines.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Fields, Id, IdType, Reason, Record};

/// The fields of a record that are in use, as they are written: the parser's own messages about a value would print it, and it
/// may be a user's text.
#[derive(Default)]
struct Picked<'a> {
    text: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    instruction: Option<&'a RawValue>,
}

struct Picker<'f>(&'f Fields);

impl<'de> DeserializeSeed<'de> for Picker<'_> {
    type Value = Picked<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Picker<'_> {
    type Value = Picked<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut picked = Picked::default();
        let is = |field: &Option<String>, key: &str| field.as_deref() == Some(key);
        while let Some(Key(key)) = map.next_key()? {
            let place = if key == self.0.text {
                &mut picked.text
            } else if is(&self.0.id, &key) {
                &mut picked.id
            } else if is(&self.0.instruction, &key) {
                &mut picked.instruction
            } else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if place.replace(map.next_value()?).is_some() {
                return Err(A::Error::custom("a field is there twice"));
            }
        }
        Ok(picked)
    }
}

/// A key, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

pub(super) fn record(line: &str, fields: &Fields) -> Record {
    let picked = match pick(line, fields) {
        Ok(picked) => picked,
        Err(reason) => return Record { id: None, content: Err(reason) },
    };
    let id = fields.id.as_deref().map(|name| id(picked.id, name, fields.id_type)).transpose();
    let (id, bad_id) = match id {
        Ok(id) => (id, None),
        Err(reason) => (None, Some(reason)),
    };
    let content = || {
        if let Some(reason) = bad_id {
            return Err(reason);
        }
        let text = string(picked.text, &fields.text)?
            .ok_or_else(|| Reason::input(format!("field {:?}: the text is null", fields.text)))?;
        let instruction = match &fields.instruction {
            // A record may leave it out, or have null, for the default one.
            Some(name) if picked.instruction.is_some() => string(picked.instruction, name)?,
            _ => None,
        };
        Ok((instruction, text))
    };
    Record { id, content: content() }
}

/// The type of a record's identifier; `None` without one.
pub(super) fn id_type(line: &[u8], fields: &Fields) -> Result<Option<IdType>, Reason> {
    let line = std::str::from_utf8(line).map_err(|_| Reason::input("invalid UTF-8"))?;
    let picked = pick(line, fields)?;
    Ok(picked.id.filter(|value| value.get() != "null").map(|value| {
        // What is neither is refused when its part is made.
        if value.get().starts_with('"') { IdType::String } else { IdType::Int64 }
    }))
}

fn pick<'a>(line: &'a str, fields: &Fields) -> Result<Picked<'a>, Reason> {
    if !line.trim_start().starts_with('{') {
        return Err(Reason::input("not a valid record: expected a JSON object"));
    }
    let invalid = |error: serde_json::Error| {
        // The parser counts lines within the record, which is always one line.
        let (reason, column) = (error.to_string(), error.column());
        let reason = reason.trim_end_matches(&format!(" at line 1 column {column}")).to_owned();
        Reason::input(format!("not a valid record: {reason} at byte {column} of the line"))
    };
    let mut deserializer = serde_json::Deserializer::from_str(line);
    let picked = Picker(fields).deserialize(&mut deserializer).map_err(invalid)?;
    deserializer.end().map_err(invalid)?;
    Ok(picked)
}

/// A string; `None` for null.
fn string(value: Option<&RawValue>, name: &str) -> Result<Option<String>, Reason> {
    let value = value.ok_or_else(|| Reason::input(format!("the record has no field {name:?}")))?;
    serde_json::from_str(value.get()).map_err(|error| {
        let reason = if error.is_data() { "expected a string".to_owned() } else { error.to_string() };
        Reason::input(format!("field {name:?}: {reason}"))
    })
}

fn id(value: Option<&RawValue>, name: &str, id_type: IdType) -> Result<Id, Reason> {
    let value = value.map(RawValue::get).filter(|value| *value != "null");
    let value = value.ok_or_else(|| Reason::input(format!("the record has no field {name:?}, or null in it")))?;
    let (id, wanted) = match id_type {
        IdType::Int64 => (serde_json::from_str(value).ok().map(Id::Number), "an integer of 64 bits"),
        IdType::String => (serde_json::from_str(value).ok().map(Id::Text), "a string"),
    };
    id.ok_or_else(|| Reason::input(format!("field {name:?}: expected {wanted}, as in the first record")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(id: Option<&str>, id_type: IdType) -> Fields {
        let instruction = Some("ask".to_owned());
        Fields { text: "body".to_owned(), id: id.map(ToOwned::to_owned), id_type, instruction }
    }

    #[test]
    fn fields_in_use_are_read_and_others_are_not_looked_at() {
        let line = r#"{"x": {"body": [1e999]}, "bo\u0064y": "a\u0000b", "ask": "who? ", "key": 7, "y": null}"#;
        let record = record(line, &fields(Some("key"), IdType::Int64));
        assert_eq!(record.id, Some(Id::Number(7)));
        assert_eq!(record.content.unwrap(), (Some("who? ".to_owned()), "a\0b".to_owned()));
    }

    #[test]
    fn bad_records_have_reasons_without_texts() {
        for (line, wanted) in [
            (r#"{"key": "a"}"#, "no field \"body\""),
            (r#"{"key": "a", "body": null}"#, "the text is null"),
            (r#"{"key": "a", "body": ["secret"]}"#, "field \"body\": expected a string"),
            (r#"{"key": "a", "body": "secret", "ask": 5}"#, "field \"ask\": expected a string"),
            (r#"{"key": 5, "body": "secret"}"#, "field \"key\": expected a string, as in the first record"),
            (r#"{"key": null, "body": "secret"}"#, "field \"key\""),
            (r#"{"key": "a", "body": "secret", "body": "b"}"#, "twice"),
            (r#"{"key": "a", "body": "secret"} {}"#, "trailing characters"),
            (r#"{"key": "a", "body": "secr"#, "EOF"),
            (r#""secret""#, "expected a JSON object"),
        ] {
            let reason = record(line, &fields(Some("key"), IdType::String)).content.unwrap_err();
            assert!(reason.message.contains(wanted) && !reason.message.contains("secret"), "{line}: {reason:?}");
        }
    }

    #[test]
    fn a_record_that_cannot_be_embedded_keeps_its_identifier() {
        let record = record(r#"{"body": null, "key": "k1"}"#, &fields(Some("key"), IdType::String));
        assert_eq!(record.id, Some(Id::Text("k1".to_owned())));
        assert!(record.content.is_err());
    }

    #[test]
    fn an_instruction_may_be_left_out() {
        for line in [r#"{"body": "b"}"#, r#"{"body": "b", "ask": null}"#] {
            assert_eq!(record(line, &fields(None, IdType::Int64)).content.unwrap().0, None);
        }
    }
}
