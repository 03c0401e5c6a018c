# Docks a fish to another machine's Docker engine: `dock-env NAME --shell fish | source`; `castoff` goes back.

function _dock_apply
    for name in DOCKER_HOST DOCKER_IP DOCKER_CONTEXT DOCKER_TLS DOCKER_TLS_VERIFY DOCKER_CERT_PATH BUILDX_BUILDER \
            TESTCONTAINERS_HOST_OVERRIDE TC_HOST TESTCONTAINERS_CONNECTION_MODE TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE
        # What castoff restores: v is a variable of this shell, x an exported one. A universal variable is not changed,
        # but hidden meanwhile by an empty one of this shell.
        set --erase --global _DOCK_OLD_$name
        if set --query --global --export $name
            set --global _DOCK_OLD_$name x $$name
        else if set --query --global $name
            set --global _DOCK_OLD_$name v $$name
        end
        set --erase --global $name
        if set --query $name
            set --global --unexport $name
        end
    end
    for line in $argv
        set --local pair (string split --max 1 = -- $line)
        switch $pair[1]
            case DOCKER_HOST DOCKER_IP DOCKER_TLS DOCKER_TLS_VERIFY DOCKER_CERT_PATH _DOCK_MONIKER \
                    TESTCONTAINERS_HOST_OVERRIDE TC_HOST TESTCONTAINERS_CONNECTION_MODE TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE
                set --global --export $pair[1] $pair[2]
            case prompt
                set --global _DOCK_PROMPT $pair[2]
            case notice
                set --global _DOCK_NOTICE $pair[2]
        end
    end
    # The right prompt: virtual environments change the left one only. A theme that rebuilds it loses the mark until the
    # next prompt.
    if set --query _DOCK_PROMPT
        function _dock_mark --on-event fish_prompt --description 'Have the right prompt show the dock'
            functions fish_right_prompt 2>/dev/null | string match --quiet '*$_DOCK_PROMPT*'; and return
            functions --query _dock_right_prompt; and functions --erase _dock_right_prompt
            functions --query fish_right_prompt; and functions --copy fish_right_prompt _dock_right_prompt
            function fish_right_prompt --description 'The dock, and what was here before'
                functions --query _dock_right_prompt; and _dock_right_prompt
                echo -n -s $_DOCK_PROMPT
            end
        end
        _dock_mark
    end

    # Shows, once, the notices that the dock's agent left in a file. Nearly always there is no file, which costs one
    # test.
    if set --query _DOCK_NOTICE
        function _dock_notice --on-event fish_prompt --description 'Show what the agent of the dock has to say'
            if test -s "$_DOCK_NOTICE"
                string match --regex '.+' <$_DOCK_NOTICE >&2
                true >$_DOCK_NOTICE
            end
        end
    end

    function castoff --description 'Go back to the engine from before `source dock`'
        command dock-env --release --pid $fish_pid 2>/dev/null
        for name in DOCKER_HOST DOCKER_IP DOCKER_CONTEXT DOCKER_TLS DOCKER_TLS_VERIFY DOCKER_CERT_PATH BUILDX_BUILDER \
            TESTCONTAINERS_HOST_OVERRIDE TC_HOST TESTCONTAINERS_CONNECTION_MODE TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE
            set --erase --global $name
            set --local old _DOCK_OLD_$name
            if set --query --global $old
                set --local was $$old
                if test "$was[1]" = x
                    set --global --export $name $was[2..-1]
                else
                    set --global --unexport $name $was[2..-1]
                end
                set --erase --global $old
            end
        end
        if set --query _DOCK_PROMPT
            _dock_mark
            functions --erase _dock_mark fish_right_prompt
            if functions --query _dock_right_prompt
                functions --copy _dock_right_prompt fish_right_prompt
                functions --erase _dock_right_prompt
            end
        end
        if set --query _DOCK_NOTICE
            functions --erase _dock_notice
        end
        set --erase --global _DOCK_MONIKER
        set --erase --global _DOCK_PROMPT
        set --erase --global _DOCK_NOTICE
        functions --erase castoff
    end
end

