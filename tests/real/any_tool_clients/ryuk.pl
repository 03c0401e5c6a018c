# What Ryuk does (https://github.com/testcontainers/moby-ryuk), as far as Testcontainers' protocol shows it: on port 8080 it
# takes lines of filters from any number of clients, and says ACK to each. When the last client has been gone for
# RYUK_RECONNECTION_TIMEOUT, it removes what the filters name, by the engine's socket.
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;

my $server = IO::Socket::INET->new(LocalPort => 8080, Listen => 5, ReuseAddr => 1) or die "port 8080: $!";
$| = 1;
print "2026/01/01 00:00:00 Started!\n";
my ($patience) = ($ENV{RYUK_RECONNECTION_TIMEOUT} // '10s') =~ /^(\d+)s$/ or die 'RYUK_RECONNECTION_TIMEOUT';
my ($open, %rest, %filters, $had_client) = IO::Select->new($server);
while (my @ready = $open->can_read($had_client && $open->count == 1 ? $patience : undef)) {
    for my $socket (@ready) {
        if ($socket == $server) {
            $open->add($server->accept);
            $had_client = 1;
        } elsif (sysread $socket, $rest{$socket}, 4096, length($rest{$socket} // '')) {
            while ($rest{$socket} =~ s/^(.*?)\r?\n//) {
                $filters{$1} = 1;
                syswrite $socket, "ACK\n";
            }
        } else {
            $open->remove($socket);
            delete $rest{$socket};
            close $socket;
        }
    }
}
print "nobody is connected\n";

sub ask {
    my ($method, $path) = @_;
    my $engine = IO::Socket::UNIX->new(Peer => '/var/run/docker.sock') or die "the engine's socket: $!";
    print $engine "$method $path HTTP/1.0\r\nHost: docker\r\n\r\n";
    local $/;
    return scalar <$engine>;
}

for my $filter (keys %filters) {
    my ($kind, $value) = $filter =~ /^(\w+)=(.*)$/ or next;
    my $query = "{\"$kind\":[\"$value\"]}";
    $query =~ s/([^A-Za-z0-9._-])/sprintf '%%%02X', ord $1/ge;
    for my $id (ask('GET', "/containers/json?all=1&filters=$query") =~ /"Id":"([0-9a-f]{64})"/g) {
        ask('DELETE', "/containers/$id?force=1&v=1");
        print "removed container $id\n";
    }
    for my $id (ask('GET', "/networks?filters=$query") =~ /"Id":"([0-9a-f]{64})"/g) {
        ask('DELETE', "/networks/$id");
        print "removed network $id\n";
    }
}
