//! JSON with places: the elements of an array with the byte range and line of each.

use crate::{Error, Result};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use std::ops::Range;

/// Length of a UTF-8 byte-order mark at the start: 3 or 0.
pub fn bom(bytes: &[u8]) -> usize {
    if bytes.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 }
}

/// Whether a file is one JSON value (an array, or an object over the whole file) rather than one object a line.
/// Both endings are met in the wild with both contents, so the contents decide; `.json` is what breaks a tie.
pub fn is_one_value(bytes: &[u8], named_json: bool) -> bool {
    let body = bytes[bom(bytes)..].trim_ascii();
    let first_line = body.split(|&b| b == b'\n').next().unwrap_or_default();
    let one_line = first_line.len() == body.len();
    let first_line_is_whole = serde_json::from_slice::<IgnoredAny>(first_line).is_ok();
    match body.first() {
        Some(b'[') => named_json || one_line || !first_line_is_whole,
        // An object a line: each line is whole. An object over many lines: its first line is not.
        Some(b'{') => named_json && (!first_line_is_whole || (one_line && has_data(body))),
        _ => named_json && !body.is_empty(),
    }
}

fn has_data(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|v| v.get("data").is_some_and(Value::is_array))
}

/// An element of the array.
#[derive(Debug, Clone, PartialEq)]
pub struct Element {
    /// 1-based line where it begins.
    pub line: u32,
    /// Bytes of the text.
    pub range: Range<usize>,
    pub value: Value,
}

/// The elements of a top-level array, or of the array under `data` in a top-level object.
///
/// # Errors
/// Invalid JSON, with line and column; a top level that is neither.
pub fn elements(text: &str) -> Result<Vec<Element>> {
    let mut scan = Scan { text, at: 0, line: 1, counted: 0 };
    let mut out = Vec::new();
    match scan.peek() {
        None => return Ok(out),
        Some('[') => scan.array(&mut out)?,
        Some('{') => {
            let mut keys = Vec::new();
            let mut found = false;
            scan.eat('{')?;
            while scan.peek() != Some('}') {
                let key: String = scan.value()?;
                scan.eat(':')?;
                if key == "data" && scan.peek() == Some('[') {
                    found = true;
                    scan.array(&mut out)?;
                } else {
                    scan.value::<IgnoredAny>()?;
                }
                keys.push(key);
                if scan.peek() == Some(',') {
                    scan.eat(',')?;
                } else if scan.peek() != Some('}') {
                    return Err(scan.expected("`,` or `}`"));
                }
            }
            scan.eat('}')?;
            if !found {
                return Err(Error::new(format!(
                    "expected an array of rows, or an object with the rows under `data`; this object has {}",
                    keys.join(", ")
                ))
                .next("put the rows into an array, or write one object a line and name the file .jsonl"));
            }
        }
        Some(_) => return Err(scan.expected("an array of objects")),
    }
    if scan.peek().is_some() {
        return Err(scan.expected("the end of the file"));
    }
    Ok(out)
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
    line: u32,
    /// Newlines are counted up to here.
    counted: usize,
}

impl Scan<'_> {
    /// The next character that is not white space.
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.text[self.at..].chars().next()
    }

    fn line(&mut self) -> u32 {
        self.line += self.text.as_bytes()[self.counted..self.at].iter().filter(|&&b| b == b'\n').count() as u32;
        self.counted = self.at;
        self.line
    }

    fn eat(&mut self, c: char) -> Result<()> {
        if self.peek() != Some(c) {
            return Err(self.expected(&format!("`{c}`")));
        }
        self.at += c.len_utf8();
        Ok(())
    }

    fn expected(&mut self, what: &str) -> Error {
        let found = match self.peek() {
            None => "the file ends".to_string(),
            Some(c) => format!("found `{c}`"),
        };
        let line = self.line();
        Error::new(format!("not valid JSON at line {line}: expected {what}, {found}"))
    }

    fn value<T: DeserializeOwned>(&mut self) -> Result<T> {
        self.peek();
        let mut stream = serde_json::Deserializer::from_str(&self.text[self.at..]).into_iter::<T>();
        match stream.next() {
            Some(Ok(value)) => {
                self.at += stream.byte_offset();
                Ok(value)
            }
            Some(Err(e)) => {
                let line = self.line() + e.line().saturating_sub(1) as u32;
                let text = e.to_string();
                let words = text.split(" at line ").next().unwrap_or(&text);
                Err(Error::new(format!("not valid JSON at line {line}, column {}: {words}", e.column())))
            }
            None => Err(self.expected("a value")),
        }
    }

    fn array(&mut self, out: &mut Vec<Element>) -> Result<()> {
        self.eat('[')?;
        if self.peek() == Some(']') {
            return self.eat(']');
        }
        loop {
            self.peek();
            let (line, start) = (self.line(), self.at);
            let value = self.value()?;
            out.push(Element { line, range: start..self.at, value });
            match self.peek() {
                Some(',') => self.eat(',')?,
                Some(']') => return self.eat(']'),
                _ => return Err(self.expected("`,` or `]`")),
            }
        }
    }
}

/// What a value is, in words.
pub fn name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
