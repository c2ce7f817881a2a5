package gateway

import (
	"fmt"
	"io"
	"os"

	"gatehouse/configs"
	"gatehouse/web"
)

// site reads how the pages look and speak. What is wrong with a file is found here, before anything listens.
func site(pages configs.Pages) (web.Site, error) {
	s := web.Site{Name: pages.Name, Accent: pages.Accent.String(), Language: pages.Language}
	if pages.LogoFile != "" {
		logo, err := readLogo(pages.LogoFile)
		if err != nil {
			return s, fmt.Errorf("read pages.logo_file: %w", err)
		}
		s.Logo = logo
	}
	if pages.TextsDir != "" {
		if _, err := os.ReadDir(pages.TextsDir); err != nil { // a file system made of nothing would be no error
			return s, fmt.Errorf("read pages.texts_dir: %w", err)
		}
		s.Texts = os.DirFS(pages.TextsDir)
	}
	return s, nil
}

// readLogo reads one byte more than a logo may have, so that a larger one is refused and not cut.
func readLogo(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, web.MaxLogo+1))
}
