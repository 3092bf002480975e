//! Functions, filters and tests where minijinja and Jinja2 on Python differ.

use super::json::tojson;
use super::python::text;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};

/// Marks an error as the template's own words.
#[derive(Debug)]
struct Raised;

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("raised by the chat template")
    }
}

impl std::error::Error for Raised {}

/// Whether the template itself refused (`raise_exception`).
pub(super) fn was_raised(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|s| s.is::<Raised>())
}

pub(super) fn add_to(env: &mut Environment<'static>) {
    env.add_function("raise_exception", |message: Value| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, text(&message)).with_source(Raised))
    });
    env.add_filter("tojson", tojson);
    env.add_filter("string", |v: Value| text(&v));
    env.add_filter("join", join);
    // In Jinja2 whatever has a length and can be indexed is a sequence: text and dictionaries too.
    env.add_test("sequence", |v: Value| matches!(v.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map));
    env.add_test("iterable", |v: Value| {
        matches!(
            v.kind(),
            ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Iterable | ValueKind::Undefined
        )
    });
    // True and False are numbers in Python.
    env.add_test("number", |v: Value| matches!(v.kind(), ValueKind::Number | ValueKind::Bool));
}

/// `join(value, d="", attribute=None)`.
fn join(value: Value, between: Option<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let between = match between {
        Some(d) => text(&d),
        None => kwargs.get::<Option<String>>("d")?.unwrap_or_default(),
    };
    let attribute = kwargs.get::<Option<String>>("attribute")?;
    kwargs.assert_all_used()?;
    if value.is_undefined() {
        return Ok(String::new());
    }
    let mut parts = Vec::new();
    for item in value.try_iter()? {
        parts.push(match &attribute {
            Some(name) => text(&item.get_attr(name)?),
            None => text(&item),
        });
    }
    Ok(parts.join(&between))
}
