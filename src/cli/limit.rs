//! `kinfold limit`: how fast is sent and received.

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::config::error::EditError;
use crate::config::limit::Limited;
use crate::config::rate::Rate;
use crate::config::rate::Rates;

/// Arguments of `kinfold limit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How much to send in a second: `2 MiB/s`, `20 Mbit/s`, or off
    #[arg(long, value_name = "RATE")]
    send: Option<String>,

    /// How much to receive in a second
    #[arg(long, value_name = "RATE")]
    receive: Option<String>,

    /// For this device alone
    #[arg(long, value_name = "DEVICE", conflicts_with = "folder")]
    device: Option<String>,

    /// For this folder alone
    #[arg(long, value_name = "FOLDER")]
    folder: Option<String>,
}

/// Runs the command.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let what = match (&args.device, &args.folder) {
        (Some(device), _) => Limited::Device(device.clone()),
        (None, Some(folder)) => Limited::Folder(folder.clone()),
        (None, None) => Limited::Network,
    };
    if args.send.is_some() || args.receive.is_some() {
        context.edit(|edit| Ok(edit.limit(&what, args.send.as_deref(), args.receive.as_deref())?))?;
    }
    list(context, &what)?;
    Ok(Exit::Done)
}

/// Lists the rates of what was named, or all that are set where nothing was.
fn list(context: &Context, what: &Limited) -> Result<(), Failure> {
    let config = context.config()?;
    match what {
        Limited::Device(name) if config.device_named(name).is_none() => {
            return Err(EditError::UnknownDevice { name: name.clone() }.into());
        }
        Limited::Folder(name) if config.folder_named(name).is_none() => {
            return Err(EditError::UnknownFolder { name: name.clone() }.into());
        }
        _ => {}
    }
    let mut rows = vec![];
    if *what == Limited::Network {
        rows.push(row("all devices together", config.network.rates));
    }
    for device in &config.devices {
        let is_named = matches!(what, Limited::Device(name) if config.device_named(name) == Some(device));
        if is_named || (*what == Limited::Network && device.rates != Rates::default()) {
            rows.push(row(&format!("device {}", output::escaped(&device.name)), device.rates));
        }
    }
    for folder in &config.folders {
        let is_named = matches!(what, Limited::Folder(name) if folder.name == *name);
        if is_named || (*what == Limited::Network && folder.rates != Rates::default()) {
            rows.push(row(&format!("folder {}", output::escaped(&folder.name)), folder.rates));
        }
    }
    output::say_columns(&rows)
}

fn row(name: &str, rates: Rates) -> Vec<String> {
    let shown = |rate: Option<Rate>| rate.map_or_else(|| "as fast as it goes".to_owned(), |rate| rate.to_string());
    vec![name.to_owned(), format!("sends {}", shown(rates.send)), format!("receives {}", shown(rates.receive))]
}
