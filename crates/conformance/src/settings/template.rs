//! Texts with places to be filled in, as in `{ingress}/webhook/{tenant}`. A brace that holds no word is a brace: JSON needs no escaping.

/// A text with places to be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(&'static str),
}

impl Template {
    /// Reads a text in which these places may occur.
    ///
    /// # Errors
    /// It names another place; the error says which are known.
    pub fn parse(text: &str, known: &[&'static str]) -> Result<Self, String> {
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            plain.push_str(before);
            let end = after.find(|letter: char| !letter.is_ascii_alphabetic());
            let (word, tail) = after.split_at(end.unwrap_or(after.len()));
            match tail.strip_prefix('}') {
                Some(tail) if !word.is_empty() => {
                    let place = known.iter().find(|place| **place == word);
                    let place = place.ok_or_else(|| unknown(word, known))?;
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                    parts.push(Part::Place(place));
                    rest = tail;
                }
                _ => {
                    plain.push('{');
                    rest = after;
                }
            }
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        Ok(Template(parts))
    }

    /// Whether this place occurs.
    pub fn holds(&self, place: &str) -> bool {
        self.0
            .iter()
            .any(|part| matches!(part, Part::Place(found) if *found == place))
    }

    /// The text with these places filled in; others stay as they are written.
    pub fn fill(&self, values: &[(&str, &str)]) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Place(place) => match values.iter().find(|(name, _)| name == place) {
                    Some((_, value)) => text.push_str(value),
                    None => text.push_str(&format!("{{{place}}}")),
                },
            }
        }
        text
    }
}

fn unknown(word: &str, known: &[&str]) -> String {
    let known: Vec<String> = known.iter().map(|place| format!("{{{place}}}")).collect();
    format!(
        "nothing is known to put in for {{{word}}}; known here: {}",
        known.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const KNOWN: &[&str] = &["tenant", "nonce"];

    #[rstest]
    #[case::plain("/hook", "/hook")]
    #[case::places("/{tenant}/{nonce}/{tenant}", "/a/n/a")]
    #[case::json(r#"{"id":"{nonce}","more":{"x":{}}}"#, r#"{"id":"n","more":{"x":{}}}"#)]
    #[case::a_quantifier("[0-9]{2,3}{nonce}", "[0-9]{2,3}n")]
    #[case::never_closed("{tenant", "{tenant")]
    fn places_are_filled_in_and_braces_stay(#[case] text: &str, #[case] expected: &str) {
        let template = Template::parse(text, KNOWN).unwrap();
        assert_eq!(template.fill(&[("tenant", "a"), ("nonce", "n")]), expected);
    }

    #[test]
    fn what_is_put_in_is_not_looked_at_again() {
        let template = Template::parse("{tenant}{nonce}", KNOWN).unwrap();
        assert_eq!(
            template.fill(&[("tenant", "{nonce}"), ("nonce", "n")]),
            "{nonce}n"
        );
    }

    #[test]
    fn what_is_not_known_yet_stays() {
        let template = Template::parse("{tenant}/{nonce}", KNOWN).unwrap();
        assert_eq!(template.fill(&[("nonce", "n")]), "{tenant}/n");
        assert!(template.holds("tenant") && !template.holds("body"));
    }

    #[test]
    fn an_unknown_place_is_named_with_those_that_are_known() {
        let error = Template::parse("/{tennant}", KNOWN).unwrap_err();
        assert_eq!(
            error,
            "nothing is known to put in for {tennant}; known here: {tenant}, {nonce}"
        );
    }
}
