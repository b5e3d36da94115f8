//! The file of a compiled graph: a node `EPContext` that names the file of its engine.
//!
//! The path that a provider writes there leads to where the engine was made, and the folder is moved afterwards. This module
//! replaces it by the engine's plain name, which is looked for beside the graph. The file is a protobuf message, of which only the
//! fields on the way to that attribute are read
//! ([onnx.proto](https://github.com/onnx/onnx/blob/main/onnx/onnx.proto),
//! [encoding](https://protobuf.dev/programming-guides/encoding/)).

/// `ModelProto.graph`, `GraphProto.node`, `NodeProto.attribute`: the way to the attributes.
const WAY: [u64; 3] = [7, 1, 5];
/// `AttributeProto.name` and `.s`.
const NAME: u64 = 1;
const STRING: u64 = 4;
/// The attribute with the engine's path.
const ENGINE: &[u8] = b"ep_cache_context";

/// A field of a message: its number, all of its bytes, and its content if that has a length.
struct Field<'m> {
    number: u64,
    whole: &'m [u8],
    content: Option<&'m [u8]>,
}

/// The same graph with the plain name of each engine's file, and these names. `None` when it is no such graph.
pub(super) fn with_plain_names(model: &[u8]) -> Option<(Vec<u8>, Vec<String>)> {
    let mut names = Vec::new();
    let changed = rewrite(model, &WAY, &mut names)?;
    (!names.is_empty()).then_some((changed, names))
}

fn rewrite(message: &[u8], way: &[u64], names: &mut Vec<String>) -> Option<Vec<u8>> {
    let fields = fields(message)?;
    let Some((next, rest)) = way.split_first() else { return rename(&fields, names) };
    let mut changed = Vec::with_capacity(message.len());
    for Field { number, whole, content } in &fields {
        match content {
            Some(content) if number == next => put(&mut changed, *number, &rewrite(content, rest, names)?),
            _ => changed.extend_from_slice(whole),
        }
    }
    Some(changed)
}

/// The fields of an attribute, with another value if it is the one that names the engine.
fn rename(fields: &[Field<'_>], names: &mut Vec<String>) -> Option<Vec<u8>> {
    let is_engine = fields.iter().any(|field| field.number == NAME && field.content == Some(ENGINE));
    let mut changed = Vec::new();
    for Field { number, whole, content } in fields {
        match content {
            Some(path) if is_engine && *number == STRING => {
                let name = std::str::from_utf8(path).ok()?.rsplit(['/', '\\']).next()?;
                put(&mut changed, STRING, name.as_bytes());
                names.push(name.to_owned());
            }
            _ => changed.extend_from_slice(whole),
        }
    }
    Some(changed)
}

fn fields(mut message: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let start = message;
        let key = varint(&mut message)?;
        let content = match key & 7 {
            0 => {
                varint(&mut message)?;
                None
            }
            1 => take(&mut message, 8).map(|_| None)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                Some(take(&mut message, length)?)
            }
            5 => take(&mut message, 4).map(|_| None)?,
            _ => return None,
        };
        fields.push(Field { number: key >> 3, whole: &start[..start.len() - message.len()], content });
    }
    Some(fields)
}

fn take<'m>(message: &mut &'m [u8], length: usize) -> Option<&'m [u8]> {
    let (taken, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some(taken)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take(message, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn put(message: &mut Vec<u8>, number: u64, content: &[u8]) {
    for mut value in [number << 3 | 2, content.len() as u64] {
        while value >= 0x80 {
            message.push(value as u8 | 0x80);
            value >>= 7;
        }
        message.push(value as u8);
    }
    message.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(parts: &[(u64, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        parts.iter().for_each(|(number, content)| put(&mut bytes, *number, content));
        bytes
    }

    /// A graph of one node with two attributes, between fields of every encoding.
    fn model(path: &[u8]) -> Vec<u8> {
        let mut other = message(&[(NAME, b"embed_mode")]);
        other.extend([3 << 3, 0x80, 1, 2 << 3 | 5, 0, 0, 128, 63]);
        let engine = message(&[(NAME, ENGINE), (STRING, path)]);
        let node = message(&[(1, b"input"), (5, &other), (5, &engine)]);
        let mut model = vec![1 << 3, 10, 9 << 3 | 1, 1, 2, 3, 4, 5, 6, 7, 8];
        model.extend(message(&[(7, &message(&[(1, &node), (2, b"graph")])), (14, b"metadata")]));
        model
    }

    #[test]
    fn only_the_folders_of_an_engines_path_are_taken_away() {
        let long = format!("/a/{}/some.engine", "folder/".repeat(40));
        for path in [long.as_str(), "cache/x.partial/some.engine", "some.engine"] {
            let (changed, names) = with_plain_names(&model(path.as_bytes())).unwrap();
            assert_eq!((changed, names), (model(b"some.engine"), vec!["some.engine".to_owned()]), "{path}");
        }
    }

    #[test]
    fn what_is_no_compiled_graph_is_left_alone() {
        let mut cut = model(b"a/b.engine");
        cut.pop();
        let group = [3];
        for bytes in [
            &b""[..],
            &cut,
            &group,
            &message(&[(7, &message(&[(1, b"")]))]),
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert!(with_plain_names(bytes).is_none(), "{bytes:?}");
        }
    }
}
