# make install and make deb, included by the Makefile.
#
#   PREFIX      /usr/local   the program, units, documents
#   SYSCONFDIR  /etc         the configuration; also the program's default for -c
#   DESTDIR                  prefix of all these paths, for building packages
#
# Nothing outside of them is written, and no file changes its owner. An existing configuration file is kept; if the shipped
# one differs, it is installed beside it as NAME.new.

PREFIX      ?= /usr/local
SYSCONFDIR  ?= /etc
SBINDIR     ?= $(PREFIX)/sbin
DATADIR     ?= $(PREFIX)/share/taskproxy
DOCDIR      ?= $(PREFIX)/share/doc/taskproxy
MANDIR      ?= $(PREFIX)/share/man
UNITDIR     ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d

CONF_TARGET := $(DESTDIR)$(SYSCONFDIR)/taskproxy
MAN_PAGES   := $(wildcard conf/man/*.[58]) $(patsubst conf/man/%.in,build/man/%,$(wildcard conf/man/*.in))

# $(call put,FILES,FOLDER) and $(call put_conf,FILES,FOLDER); no file, no folder.
put      = $(if $(strip $(1)),install -d $(DESTDIR)$(2) && install -m 644 $(1) $(DESTDIR)$(2))
put_conf = @install -d $(2); for file in $(1); do target=$(2)/$${file\#\#*/}; \
           [ ! -e $$target ] || cmp -s $$file $$target || target=$$target.new; install -m 644 $$file $$target; done

install: build/taskproxy build/installed/taskproxy.json build/installed/taskproxy.service build/installed/taskproxy@.service \
         $(MAN_PAGES)
	install -D -m 755 build/taskproxy $(DESTDIR)$(SBINDIR)/taskproxy
	$(call put_conf,build/installed/taskproxy.json,$(CONF_TARGET))
	$(call put_conf,$(wildcard conf/providers/*.json),$(CONF_TARGET)/providers)
	install -d -m 700 $(CONF_TARGET)/keys
	$(call put,$(wildcard nginx/*.conf),$(DATADIR)/nginx)
	sed -i 's|/usr/share/taskproxy|$(DATADIR)|' $(DESTDIR)$(DATADIR)/nginx/*.conf
	$(call put,$(filter-out nginx/www/demo%,$(wildcard nginx/www/*.html nginx/www/*.css nginx/www/*.js)),$(DATADIR)/www)
	$(call put,conf/unified-view.schema.json $(wildcard conf/openapi.yaml),$(DATADIR))
	$(call put,$(wildcard conf/prometheus/*),$(DATADIR)/prometheus)
	$(call put,build/installed/taskproxy.service build/installed/taskproxy@.service conf/systemd/taskproxy.socket,$(UNITDIR))
	install -D -m 644 conf/systemd/sysusers.conf $(DESTDIR)$(SYSUSERSDIR)/taskproxy.conf
	install -D -m 644 conf/systemd/tmpfiles.conf $(DESTDIR)$(TMPFILESDIR)/taskproxy.conf
	$(call put,$(filter %.5,$(MAN_PAGES)),$(MANDIR)/man5)
	$(call put,$(filter %.8,$(MAN_PAGES)),$(MANDIR)/man8)
	$(call put,README.md conf/production.md conf/clients.md,$(DOCDIR))
	$(call put,conf/providers/README.md,$(DOCDIR)/providers)

deb:
	$(INSTALL) build deb
	@conf/build-deb

# As many workers as the unit has sockets.
build/installed/taskproxy.json: conf/taskproxy.json conf/install.mk
	@mkdir -p $(@D)
	@sed -e 's|"workers": 0,|"workers": 2,|' $< > $@

build/installed/taskproxy.service: conf/systemd/taskproxy.service build/installed/places
	@sed -e 's|/usr/sbin/|$(SBINDIR)/|g' -e 's|/etc/taskproxy|$(SYSCONFDIR)/taskproxy|g' $< > $@

# The same for a further instance: with its own configuration and directory of sockets, and without systemd's sockets.
build/installed/taskproxy@.service: build/installed/taskproxy.service conf/install.mk
	@sed -e 's|^Description=.*|& (%i)|' -e '/^Requires=/d' -e 's|^After=taskproxy.socket |After=|' \
		-e 's|/taskproxy\.json|/%i.json|' -e 's/ A limit would also$$//' -e '/^# stop the sockets/d' \
		-e '/^# The directory of the sockets/,/could no longer/d' \
		-e 's|^ReadWritePaths=.*|RuntimeDirectory=taskproxy-%i|' -e '/^Also=/d' $< > $@

# Changes when the paths do, so that files that contain them are built again.
build/installed/places: FORCE
	@mkdir -p $(@D)
	@echo '$(SYSCONFDIR) $(SBINDIR)' | cmp -s - $@ || echo '$(SYSCONFDIR) $(SBINDIR)' > $@

build/main.o: build/installed/places
build/main.o: CPPFLAGS += -DSYSCONFDIR='"$(SYSCONFDIR)"'

.PHONY: install deb FORCE
