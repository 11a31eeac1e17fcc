//! Takes the two files of Swagger UI that `/docs` needs out of the archive, and compresses them as they are sent.
#![expect(clippy::disallowed_methods, reason = "a build script is told by the environment where to write")]

use std::error::Error;
use std::fs::File;
use std::io::{self, Cursor};
use std::path::PathBuf;

use flate2::{Compression, GzBuilder};
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;

const FILES: [&str; 2] = ["swagger-ui-bundle.js", "swagger-ui.css"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED))?;
    for name in FILES {
        let is_it = |path: &str| path.ends_with(&format!("/dist/{name}"));
        let inside = archive.file_names().flatten().find(|path| is_it(path));
        let inside = inside.ok_or(format!("Swagger UI has no {name} any more"))?.into_owned();
        // Without a time or a name, the same input gives the same program.
        let mut compressed =
            GzBuilder::new().write(File::create(folder.join(format!("{name}.gz")))?, Compression::best());
        io::copy(&mut archive.by_name(inside.as_str())?, &mut compressed)?;
        compressed.finish()?;
    }
    Ok(())
}
