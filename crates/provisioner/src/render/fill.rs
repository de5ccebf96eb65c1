//! Puts values into one template: handlebars, strict, without escaping. That is safe because values come out of validated types
//! and what is rendered is checked afterwards; free text goes in by `{{json NAME}}`, which is YAML as well.

use super::RenderError;
use crate::template::Template;
use handlebars::template::{HelperTemplate, Parameter, Template as Compiled, TemplateElement};
use handlebars::{
    Context, Handlebars, Helper, HelperResult, Output, Path, PathSeg, RenderContext, RenderErrorReason,
    no_escape,
};
use serde_json::{Map, Value};

pub(super) struct Engine(Handlebars<'static>);

impl Engine {
    pub(super) fn new() -> Self {
        let mut handlebars = Handlebars::new();
        handlebars.set_strict_mode(true);
        handlebars.register_escape_fn(no_escape);
        handlebars.register_helper("json", Box::new(json));
        Self(handlebars)
    }

    /// The template's text with the values put in.
    pub(super) fn fill(
        &self,
        template: &Template,
        known: &[&'static str],
        values: &Map<String, Value>,
    ) -> Result<String, RenderError> {
        let compiled = Compiled::compile(&template.source).map_err(|error| RenderError::Syntax {
            file: template.file.clone(),
            line: error.pos().map_or(1, |(line, _)| line),
            problem: error.reason().to_string(),
        })?;
        // Strict mode itself lets `{{#if NAME}}` pass for a name that does not exist.
        check_names(template, &compiled, known)?;
        self.0.render_template(&template.source, values).map_err(|error| {
            let line = error.line_no.unwrap_or(1);
            match error.reason() {
                RenderErrorReason::MissingVariable(name) => {
                    unknown(template, line, name.clone().unwrap_or_default(), known)
                }
                reason => RenderError::Syntax {
                    file: template.file.clone(),
                    line,
                    problem: reason.to_string(),
                },
            }
        })
    }
}

/// `{{json NAME}}`: the value as JSON, which is YAML too, whatever characters a text holds.
fn json(
    helper: &Helper<'_>,
    _: &Handlebars<'_>,
    _: &Context,
    _: &mut RenderContext<'_, '_>,
    out: &mut dyn Output,
) -> HelperResult {
    let value = helper
        .param(0)
        .ok_or(RenderErrorReason::ParamNotFoundForIndex("json", 0))?;
    if value.is_value_missing() {
        return Err(RenderErrorReason::MissingVariable(value.relative_path().cloned()).into());
    }
    out.write(&serde_json::to_string(value.value()).map_err(RenderErrorReason::from)?)?;
    Ok(())
}

fn unknown(template: &Template, line: usize, name: String, known: &[&'static str]) -> RenderError {
    let similar = known
        .iter()
        .map(|other| (distance(&name, other), *other))
        .min()
        .filter(|(far, _)| *far <= 3);
    RenderError::Variable {
        file: template.file.clone(),
        line,
        name,
        similar: similar.map(|(_, other)| other),
    }
}

fn check_names(template: &Template, compiled: &Compiled, known: &[&'static str]) -> Result<(), RenderError> {
    let mut names = Vec::new();
    collect(compiled, &mut names);
    match names
        .into_iter()
        .find(|(name, _)| !known.contains(&name.as_str()))
    {
        Some((name, line)) => Err(unknown(template, line, name, known)),
        None => Ok(()),
    }
}

/// Every variable that the template mentions, with its line.
fn collect(compiled: &Compiled, names: &mut Vec<(String, usize)>) {
    for (at, element) in compiled.elements.iter().enumerate() {
        let line = compiled.mapping.get(at).map_or(1, |mapping| mapping.0);
        match element {
            TemplateElement::Expression(helper)
            | TemplateElement::HtmlExpression(helper)
            | TemplateElement::HelperBlock(helper) => collect_helper(helper, line, names),
            _ => {}
        }
    }
}

fn collect_helper(helper: &HelperTemplate, line: usize, names: &mut Vec<(String, usize)>) {
    if helper.params.is_empty() && helper.hash.is_empty() {
        collect_parameter(&helper.name, line, names);
    }
    for parameter in helper.params.iter().chain(helper.hash.values()) {
        collect_parameter(parameter, line, names);
    }
    for inner in [&helper.template, &helper.inverse].into_iter().flatten() {
        collect(inner, names);
    }
}

fn collect_parameter(parameter: &Parameter, line: usize, names: &mut Vec<(String, usize)>) {
    match parameter {
        Parameter::Name(name) if name != "this" => names.push((name.clone(), line)),
        // `this` has no named first segment; inside of a block `../NAME` has its name behind the dots.
        Parameter::Path(Path::Relative((segments, _))) => {
            let name = segments.iter().find_map(|segment| match segment {
                PathSeg::Named(name) => Some(name),
                _ => None,
            });
            names.extend(
                name.filter(|name| *name != "this")
                    .map(|name| (name.clone(), line)),
            );
        }
        Parameter::Subexpression(inner) => {
            if let TemplateElement::Expression(helper) = inner.as_element() {
                collect_helper(helper, line, names);
            }
        }
        _ => {}
    }
}

/// How many single characters have to be put in, left out or replaced.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
