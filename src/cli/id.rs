//! `kinfold id`: the device id, alone on standard output so that scripts can take it.

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::keys::fingerprint;

/// Arguments of `kinfold id`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print it as a QR code instead
    #[arg(long, conflicts_with = "words")]
    qr: bool,

    /// Print the words that stand for it instead, to read them to somebody
    #[arg(long)]
    words: bool,
}

/// Runs the command.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let id = context.own_id()?;
    if args.qr {
        // Upper case needs a third fewer modules, and reads the same.
        let code = QrCode::new(id.to_string().to_uppercase()).map_err(|error| Failure::from_error(&error))?;
        // Dark on light as scanners want it, on terminals that are light on dark.
        output::say(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())?;
    } else if args.words {
        output::say(fingerprint::fingerprint_words(&id))?;
    } else {
        output::say(id)?;
    }
    Ok(Exit::Done)
}
