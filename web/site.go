package web

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
)

var (
	//go:embed assets/gatehouse.css
	baseStyle []byte
	//go:embed assets/mark.svg
	mark string
)

// Site is how the pages look and speak. The zero Site is Gatehouse's own.
type Site struct {
	// Name stands above every page; Gatehouse if empty.
	Name string
	// Accent is the colour of buttons and links, as #rrggbb. What stands on it is black or white, and where it is itself text
	// it is darkened or lightened, so that everything can be read (WCAG 2.2, success criterion 1.4.3).
	Accent string
	// Logo is a PNG or SVG file's content; our mark if empty.
	Logo []byte
	// Language is for readers who ask for none that there is; English if empty.
	Language string
	// Texts holds further languages, and texts in place of ours, as files named fr.json and so on; may be nil.
	Texts fs.FS
}

// The defaults of a Site.
const (
	defaultName     = "Gatehouse"
	defaultAccent   = "#2f5bd0"
	defaultLanguage = "en"
)

// look is a Site ready to be drawn.
type look struct {
	Name string
	// StyleSheet and Logo are addresses. They change with the content, so that browsers may keep it.
	StyleSheet, Logo string

	style    []byte
	logo     []byte
	logoType string
	texts    *texts
}

// newLook reads a Site. The second result names texts that a language lacks.
func newLook(s Site) (*look, []string, error) {
	l := &look{Name: orElse(s.Name, defaultName)}
	accent, err := parseColour(orElse(s.Accent, defaultAccent))
	if err != nil {
		return nil, nil, err
	}
	if len(s.Logo) == 0 {
		l.logo, l.logoType = []byte(fmt.Sprintf(mark, accent, accent.ink())), svgType
	} else if l.logoType, err = logoType(s.Logo); err != nil {
		return nil, nil, fmt.Errorf("logo: %w", err)
	} else {
		l.logo = s.Logo
	}
	l.style = append(bytes.Clone(baseStyle), accentStyle(accent)...)
	l.StyleSheet = Prefix + "assets/gatehouse.css?v=" + version(l.style)
	l.Logo = Prefix + "assets/logo?v=" + version(l.logo)
	var missing []string
	l.texts, missing, err = loadTexts(orElse(s.Language, defaultLanguage), s.Texts)
	return l, missing, err
}

// accentStyle sets the colours that follow from the accent; the surfaces are those of the style sheet.
func accentStyle(accent colour) string {
	light, dark := accent.readableOn(colour{0xf4, 0xf5, 0xf7}), accent.readableOn(colour{0x19, 0x1d, 0x24})
	return fmt.Sprintf(":root{--accent:%s;--on-accent:%s;--link:%s}\n@media (prefers-color-scheme:dark){:root{--link:%s}}\n", accent, accent.ink(), light, dark)
}

func (e *Edge) styleSheet(w http.ResponseWriter, r *http.Request) {
	serveAsset(w, r, e.look.style, "text/css; charset=utf-8")
}

// logo serves the logo. Opened by itself, an SVG is a document that could run scripts; the policy forbids it.
func (e *Edge) logo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
	serveAsset(w, r, e.look.logo, e.look.logoType)
}

// serveAsset serves what a page refers to. With its version in the address it may be kept for ever.
func serveAsset(w http.ResponseWriter, r *http.Request, content []byte, mediaType string) {
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Cache-Control", "public, max-age=300")
	if r.URL.Query().Get("v") == version(content) {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	_, _ = w.Write(content) // the browser went away: nothing is left to tell it
}

// version tells one content from another.
func version(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:6])
}

func orElse(text, fallback string) string {
	if text == "" {
		return fallback
	}
	return text
}
