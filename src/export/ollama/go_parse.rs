//! The part of Go's `text/template` language that Ollama's templates use, read into a tree.
//!
//! Text, `{{ … }}` with trim marks, comments, `if`/`else if`/`else`, `range` with one or two variables, declarations,
//! fields, variables, strings, whole numbers and calls. Anything else is an error: what is not read is not guessed.

use crate::{Error, Result};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    Print(Expr),
    /// `{{ $name := value }}`, or `=` for one that is there.
    Set {
        name: String,
        value: Expr,
        declares: bool,
    },
    If {
        arms: Vec<(Expr, Vec<Node>)>,
        otherwise: Vec<Node>,
    },
    Range {
        variables: Vec<String>,
        over: Expr,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    /// `.A.B`; none for `.` itself.
    Fields(Vec<String>),
    /// `$name.A.B`; the root is named ``.
    Variable(String, Vec<String>),
    Text(String),
    Number(i64),
    Bool(bool),
    Call(String, Vec<Expr>),
}

enum Piece {
    Text(String),
    Action(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Fields(Vec<String>),
    Variable(String, Vec<String>),
    Text(String),
    Number(i64),
    Sign(&'static str),
}

pub(super) fn parse(source: &str) -> Result<Vec<Node>> {
    let pieces = pieces(source)?;
    let mut at = 0;
    let (nodes, end) = block(&pieces, &mut at)?;
    match end {
        None => Ok(nodes),
        Some(_) => Err(Error::new("an {{ end }} or {{ else }} without a beginning")),
    }
}

/// Text and actions, trimmed as their marks say.
fn pieces(source: &str) -> Result<Vec<Piece>> {
    let mut out = Vec::new();
    let mut rest = source;
    let mut trim = false;
    loop {
        let start = rest.find("{{");
        let mut text = &rest[..start.unwrap_or(rest.len())];
        if trim {
            text = text.trim_start_matches([' ', '\t', '\r', '\n']);
        }
        let Some(start) = start else {
            out.push(Piece::Text(text.to_string()));
            return Ok(out);
        };
        let mut inner = &rest[start + 2..];
        // A trim mark is a dash with a space on its inner side.
        if let Some(after) = inner.strip_prefix('-').filter(|a| a.starts_with([' ', '\t', '\r', '\n'])) {
            text = text.trim_end_matches([' ', '\t', '\r', '\n']);
            inner = after;
        }
        out.push(Piece::Text(text.to_string()));
        let (tokens, after, trims) = action(inner)?;
        trim = trims;
        if !tokens.is_empty() {
            out.push(Piece::Action(tokens));
        }
        rest = after;
    }
}

/// One action's tokens, what follows it, and whether it trims that.
fn action(source: &str) -> Result<(Vec<Token>, &str, bool)> {
    let mut tokens = Vec::new();
    let mut rest = source;
    let unclosed = || Error::new("an action is not closed with }}");
    loop {
        let spaced = rest.starts_with([' ', '\t', '\r', '\n']);
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((tokens, after, false));
        }
        if let Some(after) = rest.strip_prefix("-}}").filter(|_| spaced) {
            return Ok((tokens, after, true));
        }
        if let Some(comment) = rest.strip_prefix("/*") {
            let end = comment.find("*/").ok_or_else(unclosed)?;
            rest = &comment[end + 2..];
            continue;
        }
        let c = rest.chars().next().ok_or_else(unclosed)?;
        let word = |s: &str| s.len() - s.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_').len();
        let path = |mut s: &str| {
            let mut names = Vec::new();
            while let Some(after) = s.strip_prefix('.').filter(|a| word(a) > 0) {
                let n = word(after);
                names.push(after[..n].to_string());
                s = &after[n..];
            }
            (names, s.len())
        };
        match c {
            '"' => {
                let (text, length) = quoted(rest)?;
                tokens.push(Token::Text(text));
                rest = &rest[length..];
            }
            '`' => {
                let end = rest[1..].find('`').ok_or_else(unclosed)?;
                tokens.push(Token::Text(rest[1..=end].to_string()));
                rest = &rest[end + 2..];
            }
            '$' => {
                let n = word(&rest[1..]);
                let (names, left) = path(&rest[1 + n..]);
                tokens.push(Token::Variable(rest[1..=n].to_string(), names));
                rest = &rest[rest.len() - left..];
            }
            '.' => {
                let (names, left) = path(rest);
                let left = if names.is_empty() { rest.len() - 1 } else { left };
                tokens.push(Token::Fields(names));
                rest = &rest[rest.len() - left..];
            }
            c if c.is_ascii_digit() => {
                let n = word(rest);
                let number = rest[..n].parse().map_err(|_| Error::new(format!("{} is no whole number", &rest[..n])))?;
                tokens.push(Token::Number(number));
                rest = &rest[n..];
            }
            c if c.is_alphabetic() || c == '_' => {
                let n = word(rest);
                tokens.push(Token::Word(rest[..n].to_string()));
                rest = &rest[n..];
            }
            _ => match [":=", "=", ",", "(", ")"].into_iter().find(|s| rest.starts_with(s)) {
                Some(sign) => {
                    tokens.push(Token::Sign(sign));
                    rest = &rest[sign.len()..];
                }
                None => return Err(Error::new(format!("{c:?} in an action is not supported"))),
            },
        }
    }
}

/// A Go string literal and its length.
fn quoted(source: &str) -> Result<(String, usize)> {
    let mut out = String::new();
    let mut chars = source.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((out, at + 1)),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some(c @ ('"' | '\\' | '\'')) => out.push(c),
                other => return Err(Error::new(format!("the escape \\{} is not supported", other.unwrap_or(' ')))),
            },
            c => out.push(c),
        }
    }
    Err(Error::new("a string is not closed"))
}

/// What ended a block.
enum Close {
    End,
    Else,
    ElseIf(Expr),
}

fn block(pieces: &[Piece], at: &mut usize) -> Result<(Vec<Node>, Option<Close>)> {
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.get(*at) {
        *at += 1;
        let tokens = match piece {
            Piece::Text(text) => {
                if !text.is_empty() {
                    nodes.push(Node::Text(text.clone()));
                }
                continue;
            }
            Piece::Action(tokens) => tokens.as_slice(),
        };
        let word = match tokens.first() {
            Some(Token::Word(word)) => word.as_str(),
            _ => "",
        };
        match (word, &tokens[1..]) {
            ("end", []) => return Ok((nodes, Some(Close::End))),
            ("else", []) => return Ok((nodes, Some(Close::Else))),
            ("else", [Token::Word(w), condition @ ..]) if w == "if" => {
                return Ok((nodes, Some(Close::ElseIf(expression(condition)?))));
            }
            ("if", condition) => nodes.push(conditional(expression(condition)?, pieces, at)?),
            ("range", over) => nodes.push(range(over, pieces, at)?),
            ("with" | "define" | "template" | "block" | "break" | "continue" | "else", _) => {
                return Err(Error::new(format!("{{{{ {word} }}}} is not supported")));
            }
            _ => match tokens {
                [Token::Variable(name, fields), Token::Sign(sign @ (":=" | "=")), value @ ..] if fields.is_empty() => {
                    nodes.push(Node::Set { name: name.clone(), value: expression(value)?, declares: *sign == ":=" });
                }
                _ => nodes.push(Node::Print(expression(tokens)?)),
            },
        }
    }
    Ok((nodes, None))
}

fn conditional(first: Expr, pieces: &[Piece], at: &mut usize) -> Result<Node> {
    let (mut arms, mut condition) = (Vec::new(), first);
    loop {
        let (body, end) = block(pieces, at)?;
        arms.push((condition, body));
        match end {
            Some(Close::End) => return Ok(Node::If { arms, otherwise: Vec::new() }),
            Some(Close::ElseIf(next)) => condition = next,
            Some(Close::Else) => return Ok(Node::If { arms, otherwise: closed(pieces, at)? }),
            None => return Err(Error::new("an {{ if }} is not ended")),
        }
    }
}

fn range(tokens: &[Token], pieces: &[Piece], at: &mut usize) -> Result<Node> {
    let (variables, over) = match tokens {
        [Token::Variable(i, _), Token::Sign(","), Token::Variable(v, _), Token::Sign(":="), over @ ..] => {
            (vec![i.clone(), v.clone()], over)
        }
        [Token::Variable(v, _), Token::Sign(":="), over @ ..] => (vec![v.clone()], over),
        over => (Vec::new(), over),
    };
    let over = expression(over)?;
    let (body, end) = block(pieces, at)?;
    let otherwise = match end {
        Some(Close::End) => Vec::new(),
        Some(Close::Else) => closed(pieces, at)?,
        _ => return Err(Error::new("a {{ range }} is not ended")),
    };
    Ok(Node::Range { variables, over, body, otherwise })
}

/// A block that only {{ end }} ends.
fn closed(pieces: &[Piece], at: &mut usize) -> Result<Vec<Node>> {
    match block(pieces, at)? {
        (nodes, Some(Close::End)) => Ok(nodes),
        _ => Err(Error::new("an {{ else }} is not ended")),
    }
}

/// A value, or a call with all that follows as its arguments.
fn expression(tokens: &[Token]) -> Result<Expr> {
    let mut at = 0;
    let found = call(tokens, &mut at)?;
    match tokens.get(at) {
        None => Ok(found),
        Some(token) => Err(Error::new(format!("{token:?} is not understood here"))),
    }
}

fn call(tokens: &[Token], at: &mut usize) -> Result<Expr> {
    if let Some(Token::Word(name)) =
        tokens.get(*at).filter(|t| !matches!(t, Token::Word(w) if w == "true" || w == "false"))
    {
        *at += 1;
        let mut arguments = Vec::new();
        while tokens.get(*at).is_some_and(|t| *t != Token::Sign(")")) {
            arguments.push(operand(tokens, at)?);
        }
        return Ok(Expr::Call(name.clone(), arguments));
    }
    operand(tokens, at)
}

fn operand(tokens: &[Token], at: &mut usize) -> Result<Expr> {
    let token = tokens.get(*at).ok_or_else(|| Error::new("a value is missing"))?;
    *at += 1;
    Ok(match token {
        Token::Fields(names) => Expr::Fields(names.clone()),
        Token::Variable(name, names) => Expr::Variable(name.clone(), names.clone()),
        Token::Text(text) => Expr::Text(text.clone()),
        Token::Number(n) => Expr::Number(*n),
        Token::Word(w) if w == "true" || w == "false" => Expr::Bool(w == "true"),
        Token::Sign("(") => {
            let inner = call(tokens, at)?;
            match tokens.get(*at) {
                Some(Token::Sign(")")) => *at += 1,
                _ => return Err(Error::new("a ( is not closed")),
            }
            inner
        }
        other => return Err(Error::new(format!("{other:?} is no value"))),
    })
}
