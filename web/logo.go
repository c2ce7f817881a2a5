package web

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"image/png"
	"io"
	"strings"
)

// maxLogo is the largest logo, in bytes.
const maxLogo = 64 << 10

// maxLogoSide is the longest side of a PNG, in pixels: a small file can hold an image that takes gigabytes to show.
const maxLogoSide = 2048

const (
	pngType = "image/png"
	svgType = "image/svg+xml"
)

// logoType returns the media type of a logo. It is found by the content, never by a name, and what is neither a PNG nor an SVG
// made of shapes is refused.
func logoType(data []byte) (string, error) {
	if len(data) > maxLogo {
		return "", fmt.Errorf("has more than %d bytes", maxLogo)
	}
	if size, err := png.DecodeConfig(bytes.NewReader(data)); err == nil {
		if max(size.Width, size.Height) > maxLogoSide {
			return "", fmt.Errorf("is longer or wider than %d pixels", maxLogoSide)
		}
		return pngType, nil
	}
	if err := checkSVG(data); err != nil {
		return "", fmt.Errorf("is neither a PNG nor an SVG that can be shown: %w", err)
	}
	return svgType, nil
}

// shapes are the elements that a logo may be made of: nothing that runs, links, embeds or animates.
var shapes = map[string]bool{
	"svg": true, "g": true, "defs": true, "title": true, "desc": true, "symbol": true, "use": true, "style": false,
	"path": true, "rect": true, "circle": true, "ellipse": true, "line": true, "polyline": true, "polygon": true,
	"text": true, "tspan": true, "linearGradient": true, "radialGradient": true, "stop": true, "clipPath": true, "mask": true,
}

// checkSVG allows the elements of shapes, without handlers and without references out of the file. Pages show the logo as an
// image, where nothing in it runs; this is for those who open it by itself.
func checkSVG(data []byte) error {
	decoder := xml.NewDecoder(bytes.NewReader(data))
	root := true
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) && !root {
			return nil
		}
		if err != nil {
			return err
		}
		switch t := token.(type) {
		case xml.Directive:
			return errors.New("it has a document type")
		case xml.StartElement:
			if root && t.Name.Local != "svg" || !shapes[t.Name.Local] {
				return fmt.Errorf("element %q is not allowed", t.Name.Local)
			}
			root = false
			if err := checkAttributes(t.Attr); err != nil {
				return err
			}
		}
	}
}

func checkAttributes(attributes []xml.Attr) error {
	for _, a := range attributes {
		value := strings.ToLower(strings.TrimSpace(a.Value))
		name := strings.ToLower(a.Name.Local)
		outside := name == "href" && !strings.HasPrefix(value, "#") || strings.Contains(strings.ReplaceAll(value, "url(#", ""), "url(")
		if strings.HasPrefix(name, "on") || outside || strings.Contains(value, "@import") {
			return fmt.Errorf("attribute %q is not allowed", a.Name.Local)
		}
	}
	return nil
}
