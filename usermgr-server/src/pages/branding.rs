//! How a team makes the pages its own: name, logo and accent colour.

use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;

use super::PagesError;
use super::reply::File;

/// The least contrast of text on its background (WCAG 2.2, 1.4.3).
const LEAST_CONTRAST: f64 = 4.5;
/// The background of cards in the dark scheme, as in `style.css`.
const DARK: Colour = Colour(0x1d, 0x20, 0x26);
const WHITE: Colour = Colour(0xff, 0xff, 0xff);
/// The most bytes of a logo.
const MAX_LOGO: u64 = 512 * 1024;

/// A colour in sRGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Colour(u8, u8, u8);

impl Colour {
    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6 && digits.is_ascii())?;
        let part = |at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
        let plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        plain.then_some(Self(part(0)?, part(2)?, part(4)?))
    }

    fn text(self) -> String {
        format!("#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }

    fn luminance(self) -> f64 {
        let linear = |part: u8| {
            let part = f64::from(part) / 255.0;
            if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(self.0) + 0.7152 * linear(self.1) + 0.0722 * linear(self.2)
    }

    /// How far apart two colours are to the eye, from 1 to 21 (WCAG 2.2).
    fn contrast(self, other: Self) -> f64 {
        let (a, b) = (self.luminance(), other.luminance());
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    /// So many hundredths of the way to white.
    fn lightened(self, hundredths: u16) -> Self {
        let part = |part: u8| {
            let way = (255 - u16::from(part)) * hundredths / 100;
            part.saturating_add(u8::try_from(way).unwrap_or(u8::MAX))
        };
        Self(part(self.0), part(self.1), part(self.2))
    }

    /// The same colour, as light as it must be to be read on a dark background.
    fn for_the_dark(self) -> Self {
        let lighter = (0..=100).map(|hundredths| self.lightened(hundredths));
        lighter.into_iter().find(|colour| colour.contrast(DARK) >= LEAST_CONTRAST + 1.0).unwrap_or(WHITE)
    }
}

/// An accent colour that can be read: as links on white, and under white text on buttons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accent(Colour);

/// What a text must be to be an accent colour.
#[cfg(feature = "program")]
pub(crate) const TAKES_ACCENT: &str =
    "a colour such as #3450c8 that can be read on white, with a contrast of 4.5 at least (WCAG 1.4.3)";

impl Accent {
    /// Reads `#rrggbb`. A colour that could not be read on white is none; the dark scheme lightens it by itself.
    pub fn parse(text: &str) -> Option<Self> {
        Colour::parse(text).filter(|colour| colour.contrast(WHITE) >= LEAST_CONTRAST).map(Self)
    }

    /// The variables that the stylesheet builds on.
    pub(super) fn variables(self) -> String {
        let Self(accent) = self;
        let mut css = String::new();
        let _infallible = writeln!(
            css,
            ":root{{--accent:{};--on-accent:#ffffff;--accent-in-the-dark:{};--on-accent-in-the-dark:{}}}",
            accent.text(),
            accent.for_the_dark().text(),
            DARK.text()
        );
        css
    }

    fn text(self) -> String {
        self.0.text()
    }
}

/// The logo: a file of the team's, or the first letter of the name on the accent colour.
pub(super) fn logo(file: Option<&Path>, name: &str, accent: Accent) -> Result<File, PagesError> {
    let (content, content_type) = match file {
        Some(path) => read(path)?,
        None => (Bytes::from(letter(name, accent)), "image/svg+xml"),
    };
    Ok(File { content, content_type, cache: super::LONG, save_as: None })
}

fn read(path: &Path) -> Result<(Bytes, &'static str), PagesError> {
    let shown = || path.display().to_string();
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let content_type = match extension.to_ascii_lowercase().as_str() {
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "webp" => "image/webp",
        "jpg" | "jpeg" => "image/jpeg",
        _ => return Err(PagesError::LogoKind(shown())),
    };
    let unreadable = |source| PagesError::Unreadable { setting: "pages.logo", file: shown(), source };
    if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_LOGO {
        return Err(PagesError::LogoSize(shown()));
    }
    Ok((std::fs::read(path).map_err(unreadable)?.into(), content_type))
}

fn letter(name: &str, accent: Accent) -> String {
    let letter = name.chars().find(|c| c.is_alphanumeric()).map(|c| c.to_uppercase().to_string());
    let accent = accent.text();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 64 64\"><rect width=\"64\" height=\"64\" rx=\"16\" \
         fill=\"{accent}\"/><text x=\"32\" y=\"44\" font-family=\"system-ui,sans-serif\" font-size=\"34\" \
         font-weight=\"600\" text-anchor=\"middle\" fill=\"#fff\">{}</text></svg>",
        letter.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accent_can_be_read_in_both_schemes() {
        for text in ["#3450c8", "#000000", "#0b6e4f", "#b00020", "#000080"] {
            let Accent(colour) = Accent::parse(text).unwrap();
            assert!(colour.contrast(WHITE) >= LEAST_CONTRAST, "{text}");
            assert!(colour.for_the_dark().contrast(DARK) >= LEAST_CONTRAST, "{text}");
        }
        for text in ["#ffcc00", "#fff", "red", "3450c8", "#3450c", "#3450cg", "#+450c8", "#3450c8;}", "#éé34"]
        {
            assert_eq!(Accent::parse(text), None, "{text}");
        }
        assert!((WHITE.contrast(Colour(0, 0, 0)) - 21.0).abs() < 0.01);
    }

    #[test]
    fn the_letter_of_a_hostile_name_is_a_letter() {
        let accent = Accent::parse("#3450c8").unwrap();
        assert!(letter("<script>", accent).contains(">S</text>"));
        assert!(letter("<>&", accent).contains("></text>"));
    }
}
