package pagestest_test

import (
	"bytes"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gatehouse/admin/api"
	"gatehouse/internal/browsertest"
	"gatehouse/internal/gatewaytest"
)

// readers are as whom every page is opened: with scripts, and without them in the other language, whose words are longer. Each looks at
// it in ways that need no page anew: between them both colour schemes, a narrow phone, a wide screen, and 200 %.
var readers = [][]browsertest.Look{
	{
		{Width: 1280, Height: 800},
		{Width: 1280, Height: 800, Dark: true},
		{Width: 1280, Height: 800, Zoom: 2},
		{Width: 320, Height: 568},
	},
	{
		{Width: 320, Height: 568, Dark: true, NoScripts: true, Language: "de"},
		{Width: 320, Height: 568, NoScripts: true, Language: "de"},
		{Width: 1920, Height: 1080, NoScripts: true, Language: "de"},
	},
}

// setupLink is what the first screen prints.
func setupLink(t *testing.T, g *gatewaytest.Gateway) string {
	t.Helper()
	summary, err := g.Summary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if summary.Setup == "" {
		t.Fatal("there is no set-up link")
	}
	return summary.Setup
}

// invite makes an account that gets an invitation, and returns its link.
func invite(t *testing.T, g *gatewaytest.Gateway, name string) string {
	t.Helper()
	made, err := g.Admin.AddInvited(t.Context(), api.NewInvitation{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return made.Link
}

// program runs one of the tools that a person would use in the browser's place, and returns what it prints.
func program(t *testing.T, pkg string, input []byte, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("there is no %s: install the Debian package %s (make deps)", name, pkg)
	}
	command := exec.CommandContext(t.Context(), name, args...)
	command.Stdin = bytes.NewReader(input)
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}

// oathtool is an authenticator app by the gateway's clock.
func oathtool(t *testing.T, g *gatewaytest.Gateway, secret string) string {
	t.Helper()
	return program(t, "oathtool", nil, "oathtool", "--totp", "--base32", "--now", g.Clock.Now().Format("2006-01-02 15:04:05 UTC"), secret)
}

// zbarimg reads the QR code on a screenshot.
func zbarimg(t *testing.T, picture []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "page.png")
	if err := os.WriteFile(file, picture, 0o600); err != nil {
		t.Fatal(err)
	}
	return program(t, "zbar-tools", nil, "zbarimg", "--quiet", "--raw", file)
}

// check holds a page, as it is shown now, to what every page must be. It looks at it in the ways that are given, or as the tab does.
func check(t *testing.T, tab *browsertest.Tab, focus string, looks ...browsertest.Look) {
	t.Helper()
	if got := tab.Focused(); got != focus {
		t.Errorf("the focus is on %s, want %s", got, focus)
	}
	if len(looks) == 0 {
		looks = []browsertest.Look{tab.Look()}
	}
	for _, look := range looks {
		tab.Show(look)
		picture := tab.Screenshot()
		if _, err := png.DecodeConfig(bytes.NewReader(picture)); err != nil {
			t.Errorf("%s: screenshot: %v", look, err)
		}
		keep(t, look, picture)
		if by := tab.Overflow(); by > 0 {
			t.Errorf("%s: the page is %d pixels wider than the window", look, by)
		}
		for _, v := range tab.Violations() {
			t.Errorf("%s: axe: %s", look, v)
		}
	}
}

// folder is the variable that names where pictures are kept.
const folder = "GATEHOUSE_SCREENSHOTS"

func keeping() bool { return os.Getenv(folder) != "" }

// keep writes a picture of the running test where GATEHOUSE_SCREENSHOTS names a folder: to be looked at.
func keep(t *testing.T, look browsertest.Look, picture []byte) {
	t.Helper()
	name := strings.TrimPrefix(t.Name(), "Test") + "-" + look.String()
	draw(t, strings.NewReplacer("/", "-", ", ", "-", "_", "-", " ", "-", "%", "").Replace(name), picture)
}

// draw writes a picture by its name.
func draw(t *testing.T, name string, picture []byte) {
	t.Helper()
	if !keeping() {
		return
	}
	if err := os.WriteFile(filepath.Join(os.Getenv(folder), name+".png"), picture, 0o644); err != nil {
		t.Fatal(err)
	}
}
