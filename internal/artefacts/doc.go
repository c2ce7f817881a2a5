// Package artefacts holds what is shipped beside the program against the program: the image, the Compose file, the systemd unit
// and the page that says how to install them. Commands in these files are carried out, settings are loaded, and what each file
// promises about confinement is looked up in it. What would need a container engine or a running systemd is not tried.
package artefacts
